// Command figures draws the figures of docs/ from the reports under
// eval/results, as SVG. They are drawn in colours that can be read on white and
// on black, since the page around them may be either.
//
//	go run ./docs/figures      # from the repository's root; make generate does it too
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "the repository's `DIR`")
	flag.Parse()
	if err := write(*root); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

// write draws all figures into docs/figures of the repository.
func write(root string) error {
	runs, err := readRuns(filepath.Join(root, "eval", "results"))
	if err != nil {
		return err
	}
	for _, f := range figures {
		svg, err := f.svg(runs)
		if err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
		if err := os.WriteFile(filepath.Join(root, "docs", "figures", f.file), svg, 0o644); err != nil {
			return err
		}
	}
	return nil
}
