// Package eval measures speed and quality on pairs of prompts and writes the
// report. It runs the sidecar in process with the same code as serve.
package eval
