package main

import (
	"bytes"
	"fmt"
	"strings"
)

const (
	tableBegin = "<!-- options: made by `go generate ./configs` -->\n"
	tableEnd   = "<!-- end of options -->\n"
)

// insertTable puts the table of options between the markers in the README.
func insertTable(readme []byte, opts []option) ([]byte, error) {
	before, rest, ok := bytes.Cut(readme, []byte(tableBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ok2 {
		return nil, fmt.Errorf("README.md lacks the lines %q and %q around the table of options", tableBegin, tableEnd)
	}
	var b bytes.Buffer
	b.Write(before)
	b.WriteString(tableBegin + "| option | default | meaning |\n| --- | --- | --- |\n")
	for _, o := range opts {
		if o.section {
			continue
		}
		value := o.value
		if _, ok := examples[o.path]; ok {
			value = "must be set"
		} else {
			value = "`" + value + "`"
		}
		meaning := strings.TrimPrefix(strings.TrimPrefix(o.doc, o.name()+" "), "is ")
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.path, value, strings.ReplaceAll(meaning, "|", `\|`))
	}
	b.WriteString(tableEnd)
	b.Write(after)
	return b.Bytes(), nil
}
