package main

import (
	"strings"
	"testing"
)

// Nothing is asked or started where a flag cannot be: no API server, no backend.
func TestFlagsAreCheckedFirst(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	f := func(want string, args ...string) {
		t.Helper()
		p := run(t, args...)
		if status := p.exit(); status != 1 || !strings.Contains(string(p.output()), want) {
			t.Errorf("%v: exit status %d, %s: want 1 and %q", args, status, p.output(), want)
		}
	}
	inject := func(flag, value string) []string {
		return []string{"inject", "--image", "i", "--cert-dir", "/d", "--kubeconfig", "/nowhere", flag, value}
	}
	f(`log.level: is "loud"`, inject("--log-level", "loud")...)
	f(`log.format: is "xml"`, inject("--log-format", "xml")...)
	f(`listen: "nope" is not an address`, inject("--listen", "nope")...)
	f(`admin: "nope" is not an address`, inject("--admin", "nope")...)
	f("every -5m0s", inject("--missed-every", "-5m")...)
	f("linger for -1s", inject("--linger", "-1s")...)
	f(`--slot-size is "4GiB"; want a size like 4Gi`, inject("--slot-size", "4GiB")...)
	f(`--missed-every is "often"; want a duration like`, inject("--missed-every", "often")...)
	f(`--min-tokens is "abc"; want a whole number`, "serve", "--min-tokens", "abc")
	f(`--retention is "half"; want a number`, "serve", "--retention", "half")
	f(`unknown command "bogus"`, "help", "bogus")
	f(`unknown command "bogus" for "semsharekv inject"`, "help", "inject", "bogus")
	f(`no completion for "bogus"; want one of bash, fish, powershell, zsh`, "completion", "bogus")
	f(`environment variable "NO_SUCH_ENV" is not set`, "serve", "--check", "--api-key-env", "NO_SUCH_ENV")
	f("want NAMESPACE/NAME", "inject", "--image", "i", "--cert-secret", "foo", "--service", "s", "--webhook", "w")
	f("want --kubeconfig FILE", "inject", "--image", "i", "--cert-dir", "/d")
	f("0 arguments; want semsharekv inspect FILE", "inspect")
	f("semsharekv: /tmp is not a regular file\n", "inspect", "/tmp")
	f("unknown shorthand flag: 'm' in -m: a server's command goes behind --", "serve", "llama-server", "-m", "x.gguf", "-c", "100")
	f("cannot start llama-swerver: executable file not found in $PATH; want a program in it, or a path", "serve", "--", "llama-swerver", "-m", "x.gguf")
	f("index.redis: cannot be used: unexpected option: foo", "serve", "--check", "--backend", "http://h:1", "--slot-dir", "/d", "--redis", "redis://localhost:6379?foo=1")
	f("--way has no effect with --other", "eval", "--other", "http://h:1", "--way", "slot", "--pairs", "p", "--out", "o")
}
