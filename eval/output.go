package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// output is the folder of a report. Its files are made before anything is measured, so that
// a folder that cannot be written costs no run, and take their names when they are complete,
// so that until then an earlier report stays.
type output struct {
	dir   string // empty: nothing is written
	files map[string]*os.File
}

func openOutput(dir string, names ...string) (*output, error) {
	o := &output{dir: dir, files: map[string]*os.File{}}
	if dir == "" {
		return o, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot write a report: %w", err)
	}
	for _, name := range names {
		f, err := os.CreateTemp(dir, "."+name+".*")
		if err != nil {
			o.close()
			return nil, fmt.Errorf("cannot write a report: %w", err)
		}
		o.files[name] = f
	}
	return o, nil
}

func (o *output) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return o.write(name, append(b, '\n'))
}

// write completes the file of that name. Where the folder does not take it, it is kept
// elsewhere, and the error says where: measuring took long.
func (o *output) write(name string, data []byte) error {
	if o.dir == "" {
		return nil
	}
	err := o.complete(name, data)
	if err == nil {
		return nil
	}
	kept, keepErr := keep(name, data)
	if keepErr != nil {
		return errors.Join(fmt.Errorf("%s is lost: %w", name, err), keepErr)
	}
	return fmt.Errorf("%s is not in %s but in %s: %w", name, o.dir, kept, err)
}

func (o *output) complete(name string, data []byte) error {
	f := o.files[name]
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(o.dir, name))
}

// keep writes a file into the folder for temporary ones.
func keep(name string, data []byte) (path string, err error) {
	f, err := os.CreateTemp("", "*-"+name)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return f.Name(), errors.Join(err, f.Close())
}

// close removes what was not completed.
func (o *output) close() {
	for _, f := range o.files {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
}
