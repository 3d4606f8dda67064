// Gen writes what is made from the configuration's types: the example file, the
// JSON schema and the README's table of options. `go generate ./configs` runs
// it; a test fails when one of them is not up to date.
package main

import (
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	files, err := generate(".")
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generate returns the files by name, for the configs directory dir.
func generate(dir string) (map[string][]byte, error) {
	opts, err := options(dir + "/config.go")
	if err != nil {
		return nil, err
	}
	schema, err := schema(opts)
	if err != nil {
		return nil, err
	}
	readme, err := os.ReadFile(dir + "/../README.md")
	if err != nil {
		return nil, err
	}
	readme, err = insertTable(readme, opts)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		dir + "/semsharekv.example.yaml": example(opts),
		dir + "/semsharekv.schema.json":  schema,
		dir + "/../README.md":            readme,
	}, nil
}
