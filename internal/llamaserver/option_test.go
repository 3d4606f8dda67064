package llamaserver

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
)

func TestValuesFollowNames(t *testing.T) {
	f := func(o Option, line string, want ...string) {
		t.Helper()
		var got []string
		for word := range o.Values(strings.Fields(line)) {
			got = append(got, *word)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q of %s, want %q", line, got, o.Name(), want)
		}
	}
	f(Port, "--host ::1 --port 1 --port 2", "1", "2")
	f(Port, "--port --port 1", "--port")
	f(Port, "--port=1 --port")
	f(Model, "-m a --model b --model-url c", "a", "b")
	f(SlotPath, "--slot_save-path a", "a")
	f(CacheRAM, "-cram 1 --cache_ram 2", "1", "2")
}

// The values are those of llama.cpp's is_truthy and is_falsey.
func TestAVariableThatTakesBackCountsWhateverItHolds(t *testing.T) {
	f := func(o Option, line string, env map[string]string, wantOn, wantOff bool) {
		t.Helper()
		on, off := o.Switch(strings.Fields(line), func(name string) (string, bool) {
			v, set := env[name]
			return v, set
		})
		if on != wantOn || off != wantOff {
			t.Errorf("%s, %v: %s is on: %v, off: %v, want %v, %v", line, env, o.Name(), on, off, wantOn, wantOff)
		}
	}
	const no, yes = "LLAMA_ARG_NO_ENDPOINT_SLOTS", "LLAMA_ARG_ENDPOINT_SLOTS"
	f(Slots, "", nil, false, false)
	f(Slots, "--slots --no-slots", nil, false, true)
	f(Slots, "--no_slots --slots", nil, true, false)
	f(Slots, "--slots", map[string]string{no: "1", yes: "0"}, true, false)
	for _, v := range []string{"", "0", "1"} {
		f(Slots, "", map[string]string{no: v, yes: "1"}, false, true)
	}
	for _, v := range []string{"off", "disabled", "false", "0"} {
		f(Slots, "", map[string]string{yes: v}, false, true)
	}
	for _, v := range []string{"on", "enabled", "true", "1"} {
		f(Slots, "", map[string]string{yes: v}, true, false)
	}
	f(Slots, "", map[string]string{yes: "no"}, false, false) // the server ends at it
	f(Embeddings, "--embedding", nil, true, false)
	f(Embeddings, "", map[string]string{"LLAMA_ARG_NO_EMBEDDINGS": "1"}, false, false) // there is no such
}

func TestOptionsAreThoseOfTheServer(t *testing.T) {
	program, _ := lab.ServerCommand(t)
	help, err := exec.Command(program, "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, help)
	}
	// A paragraph begins with an option's names at the margin.
	paragraphs := regexp.MustCompile(`(?m)^-`).Split(string(help), -1)
	f := func(o Option) {
		t.Helper()
		names := slices.Concat(o.Names, strings.Fields(o.Negated))
		i := slices.IndexFunc(paragraphs, func(p string) bool { return has("-"+p, o.Name()) })
		if i < 0 {
			t.Errorf("llama-server has no %s", o.Name())
			return
		}
		for _, want := range append(names, o.Env) {
			if !has("-"+paragraphs[i], want) {
				t.Errorf("llama-server has no %s beside %s: -%s", want, o.Name(), paragraphs[i])
			}
		}
	}
	for _, o := range ModelOptions {
		f(o)
	}
	for _, o := range []Option{Host, Port, Prefix, TLSKey, TLSCert, APIKey, KeyFile, HFToken, SlotPath, CacheRAM,
		IdleSlots, Slots, Embeddings, Reranking, ModelsDir, ModelsPreset} {
		f(o)
	}
}

// has reports whether a text has the word, with no more of a name around it.
func has(text, word string) bool {
	return slices.Contains(regexp.MustCompile(`[\w-]+`).FindAllString(text, -1), word)
}
