package configs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWatcherKeepsTheLastGoodOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	writeFile(t, file, base+"defaults: {seam: 1}")
	w, err := NewWatcher(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	reloads, failures := 0, 0
	w.Changed = func(*Config) { reloads++ }
	w.Failed = func(error) { failures++ }
	check := func(seam, wantReloads, wantFailures int) {
		t.Helper()
		if now := w.Current().Defaults.Seam; now != seam || reloads != wantReloads || failures != wantFailures {
			t.Errorf("seam %d, %d reloads, %d failures; want %d, %d, %d", now, reloads, failures, seam, wantReloads, wantFailures)
		}
	}
	w.Poll()
	check(1, 0, 0)

	writeFile(t, file, base+"defaults: {seam: 22}")
	for range 3 {
		w.Poll()
	}
	check(22, 1, 0)

	writeFile(t, file, base+"defaults: {seam: many}")
	for range 3 {
		w.Poll()
	}
	check(22, 1, 1)

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.Poll() // perhaps only being replaced
	check(22, 1, 1)

	writeFile(t, file, base+"defaults: {seam: 3}")
	w.Poll()
	w.Poll()
	check(3, 2, 1)
}

// Whether it is that no file can be opened or that it is not ours yet may pass, which does not
// show in the file.
func TestWatcherReadsAFileAgainThatCouldNotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	writeFile(t, file, base+"defaults: {seam: 1}")
	w, err := NewWatcher(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	reloads, failures := 0, 0
	w.Changed = func(*Config) { reloads++ }
	w.Failed = func(error) { failures++ }
	check := func(what string, wantReloads, wantFailures int) {
		t.Helper()
		if reloads != wantReloads || failures != wantFailures {
			t.Errorf("%s: %d reloads, %d failures; want %d, %d", what, reloads, failures, wantReloads, wantFailures)
		}
	}
	poll := func() {
		for range 3 {
			w.Poll()
		}
	}
	writeFile(t, file, base+"defaults: {seam: 22}")
	withoutFiles(t, poll)
	check("not readable", 0, 1)
	withoutFiles(t, w.Reload)
	check("asked to read it", 0, 2)
	poll()
	check("readable", 1, 2)
	if seam := w.Current().Defaults.Seam; seam != 22 {
		t.Errorf("seam %d, want 22", seam)
	}
	writeFile(t, file, base+"defaults: {seam: 333}")
	withoutFiles(t, poll)
	check("not readable once more", 1, 3)
}

// withoutFiles runs f while the process may open no file.
func withoutFiles(t *testing.T, f func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 0, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	f()
}

// Half a file may be valid.
func TestWatcherLetsAFileBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	writeFile(t, file, base+"defaults: {seam: 1}")
	w, err := NewWatcher(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	var seams []int
	w.Changed = func(c *Config) { seams = append(seams, c.Defaults.Seam) }
	for _, part := range []string{base, base + "defaults: {seam: 2}", base + "defaults: {seam: 33}"} {
		writeFile(t, file, part)
		w.Poll()
	}
	if len(seams) > 0 {
		t.Errorf("reloaded with seam %v while the file was written", seams)
	}
	w.Poll()
	if !slices.Equal(seams, []int{33}) {
		t.Errorf("reloaded with seam %v, want 33 once", seams)
	}
}

// Where flags name the backend an empty file is valid, and all clients are one tenant.
func TestWatcherRefusesAnEmptyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	flags := func(c *Config) { c.Backend.URL, c.Backend.SlotDir = "http://127.0.0.1:1", "/dev/shm/slots" }
	writeFile(t, file, "# nothing yet\n")
	w, err := NewWatcher(file, flags)
	if err != nil {
		t.Fatal(err)
	}
	var last error
	w.Failed = func(err error) { last = err }
	f := func(text, want string) {
		t.Helper()
		last = nil
		writeFile(t, file, text)
		w.Reload()
		if (last == nil) != (want == "") || last != nil && !strings.Contains(last.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, last, want)
		}
	}
	f("", "")
	f("defaults: {tenant: {source: api_key}}", "")
	f("", "c.yaml is empty")
	f("# defaults:\n#   tenant: {source: api_key}\n", "c.yaml is empty")
	f("---\n", "c.yaml is empty")
	if source := w.Current().Defaults.Tenant.Source; source != "api_key" {
		t.Errorf("tenants are %q, want those of the last good file", source)
	}
	f("{}", "")
}

// A ConfigMap is mounted as c.yaml -> ..data/c.yaml with ..data -> a folder that
// is swapped.
func TestWatcherSeesASwappedConfigMap(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "v1", "c.yaml"), base+"defaults: {seam: 1}")
	writeFile(t, filepath.Join(dir, "v2", "c.yaml"), base+"defaults: {seam: 2}")
	// Same size and time: only the inode differs.
	now := time.Now()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Chtimes(filepath.Join(dir, v, "c.yaml"), now, now); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link("..data/c.yaml", "c.yaml")
	w, err := NewWatcher(filepath.Join(dir, "c.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	link("v2", "..data_tmp")
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	w.Poll()
	w.Poll()
	if seam := w.Current().Defaults.Seam; seam != 2 {
		t.Errorf("seam %d after the swap, want 2", seam)
	}
}

func TestWatcherReloadsOnSignal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	writeFile(t, file, base)
	w, err := NewWatcher(file, func(c *Config) { c.Listen = ":1" })
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan *Config, 1)
	w.Changed = func(c *Config) { changed <- c }
	ctx, cancel := context.WithCancel(context.Background())
	hup := make(chan os.Signal, 1)
	done := make(chan struct{})
	go func() {
		w.Run(ctx, time.Hour, hup)
		close(done)
	}()
	hup <- syscall.SIGHUP
	if c := <-changed; c.Listen != ":1" {
		t.Errorf("listen is %q after a reload, want the flag's", c.Listen)
	}
	cancel()
	<-done
}
