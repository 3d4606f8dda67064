package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

func complete(t *testing.T, args ...string) string {
	t.Helper()
	p := run(t, append([]string{"__complete"}, args...)...)
	if code := p.exit(); code != 0 {
		t.Fatalf("%v: exit status %d: %s", args, code, p.output())
	}
	return string(p.output())
}

func TestCompletionOffersWhatAFlagTakes(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		args := strings.Split(line, " ")
		if got := complete(t, args...); !strings.Contains(got, want) {
			t.Errorf("semsharekv %s<TAB>: %q, want %q in it", line, got, want)
		}
	}
	f("ser", "serve\t")
	f("serve --reuse ", "off\nexact\nfuzzy\n")
	f("serve --unrepaired ", "cold\naccept\n")
	f("serve --log-level ", "trace\ndebug\n")
	f("serve --config ", "yaml\nyml\n:8") // files of these kinds
	f("serve --slot-dir ", ":16")         // directories
	f("serve --backend ", ":4")           // nothing, no files either
	f("eval --way ", "slot\n")
	f("doctor --", "--no-probe")
}

// The flags of values named in completions exist on some command.
func TestEveryCompletionHasItsFlag(t *testing.T) {
	var help bytes.Buffer
	for _, command := range []string{"serve", "eval", "doctor", "inspect", "calibrate"} {
		p := run(t, command, "--help")
		p.exit()
		help.Write(p.output())
	}
	for name := range completions {
		if !strings.Contains(help.String(), "--"+name+" ") {
			t.Errorf("completions has %q, which is no flag", name)
		}
	}
}

func TestCompletionScriptsAreValid(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := run(t, "completion", shell)
		if code := script.exit(); code != 0 || len(script.output()) == 0 {
			t.Errorf("completion %s: exit status %d, %d bytes", shell, code, len(script.output()))
			continue
		}
		if _, err := exec.LookPath(shell); err != nil {
			continue // only generated: that shell is not here
		}
		check := exec.Command(shell, "-n")
		check.Stdin = bytes.NewReader(script.output())
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s does not read its script: %v: %s", shell, err, out)
		}
	}
}
