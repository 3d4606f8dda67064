package main

import (
	"bytes"
	"fmt"
	"strings"
)

const exampleHead = `# Every option of SemShareKV with its default. Only backend.url and
# backend.slot_dir must be set; what is left out keeps its default. In any text
# ${NAME} stands for an environment variable, so that secrets need not stand
# here. The file is read again when it changes and on SIGHUP; defaults, routes,
# log.level, limits.body_bytes and limits.drain_timeout then take effect at once,
# the rest at the next start.
#
# yaml-language-server: $schema=semsharekv.schema.json
`

// examples stand in for defaults where there is none.
var examples = map[string]string{
	"backend.url":      "http://127.0.0.1:8081",
	"backend.slot_dir": "/dev/shm/semsharekv",
}

const exampleRoutes = `
# Routes are tried in order; the first whose match fits decides. A route has a
# name, a match (path, model, headers), and any of the fields of defaults.
#routes:
#  - name: documents
#    match: {path: /v1/chat/completions, model: "qwen*"}
#    tenant: {source: api_key}
#  - name: fast
#    match:
#      headers: {X-Fast: "1"}
#    unrepaired: accept
#  - name: tools
#    match: {path: /infill}
#    reuse: exact
`

// example is the YAML file that shows every option.
func example(opts []option) []byte {
	var b bytes.Buffer
	b.WriteString(exampleHead)
	for _, o := range opts {
		if strings.HasPrefix(o.path, "routes") {
			continue
		}
		indent := strings.Repeat("  ", o.depth)
		if o.depth == 0 {
			b.WriteByte('\n')
		}
		for _, line := range wrap(o.doc, 78-len(indent)) {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		value := o.value
		if v, ok := examples[o.path]; ok {
			value = v
		}
		fmt.Fprintln(&b, strings.TrimRight(indent+o.name()+": "+value, " "))
	}
	b.WriteString(exampleRoutes)
	return b.Bytes()
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimLeft(line+" "+word, " ")
	}
	return append(lines, line)
}
