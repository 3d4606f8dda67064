// Package eval measures speed and quality on pairs of prompts and writes the
// report. Each target prompt is answered twice: cold, by the backend alone, and
// through the sidecar, which runs in process with the same code as serve, after
// it has seen the reference prompt. Nothing is carried over from one pair to
// the next. The package decides nothing about sharing; it only observes.
package eval
