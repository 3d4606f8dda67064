package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

func printTable(w io.Writer, results []result) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "PROMPT\tTOKENS\tCOLD\tSIDECAR\tSPEED-UP\tWHAT WAS DONE")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%.1fx\t%s\n", r.scene.title, r.cold.tokens, show(r.cold.ttft), show(r.shared.ttft),
			float64(r.cold.ttft)/float64(r.shared.ttft), r.shared.did)
	}
	t.Flush()
	fmt.Fprintln(w, "\nTimes are to the first token of the answer; cold is the backend alone, which finds nothing in its cache.")
}

func printAnswers(w io.Writer, results []result) {
	for _, r := range results {
		fmt.Fprintf(w, "\n%s\n  cold     %s\n  sidecar  %s\n", r.scene.title, oneLine(r.cold.text), oneLine(r.shared.text))
		if r.scene.own != "" {
			fmt.Fprintf(w, "  right is %q; the similar prompt says %q, which must not appear%s\n", r.scene.own, r.scene.other, r.alone())
		}
	}
	fmt.Fprintln(w)
}

// alone says where the model would not have known either.
func (r *result) alone() string {
	if strings.Contains(r.cold.text, r.scene.own) {
		return ""
	}
	return " (this small model does not find the right one without the sidecar either)"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func show(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
