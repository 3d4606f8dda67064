package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/doctor"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// examine runs doctor and returns its findings by check, and its exit status.
func examine(t *testing.T, args ...string) (map[string]doctor.Finding, int) {
	t.Helper()
	p := run(t, append([]string{"doctor", "--json", "--listen", freeAddress(t), "--admin", freeAddress(t), "--library", "bin/libsemshare.so"}, args...)...)
	status := p.exit()
	out := p.output()
	if i := strings.LastIndex(string(out), "]"); i >= 0 {
		out = out[:i+1] // what follows is the error
	}
	var all doctor.Findings
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	byCheck := map[string]doctor.Finding{}
	for _, f := range all {
		byCheck[f.Check] = f
		if f.Level != doctor.OK && f.Advice == "" {
			t.Errorf("%s is %s without advice", f.Check, f.Level)
		}
	}
	return byCheck, status
}

func TestDoctorFindsNothingWrongWithAGoodBackend(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Context: 8192})
	found, status := examine(t, "--backend", b.URL, "--slot-dir", b.SlotDir, "--budget", "64MiB")
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	for _, check := range []string{"configuration", "slot directory", "backend", "slots", "context per slot", "model file", "sharing", "KV cache", "moving keys", "idle slots", "index"} {
		if f, ok := found[check]; !ok || f.Level != doctor.OK {
			t.Errorf("%s: %+v, want ok", check, f)
		}
	}
}

func TestDoctorNamesWhatIsWrong(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Context: 1024, Slots: 2, Unified: true, CacheIdleSlots: true, APIKey: "secret"})
	f := func(check string, level doctor.Level, wantStatus int, args ...string) {
		t.Helper()
		found, status := examine(t, args...)
		if found[check].Level != level || status != wantStatus {
			t.Errorf("%v: %s is %+v, exit status %d; want %s and %d", args, check, found[check], status, level, wantStatus)
		}
	}
	good := []string{"--backend", b.URL, "--slot-dir", b.SlotDir}
	f("backend", doctor.Wrong, 1, good...) // no key
	f("configuration", doctor.Wrong, 1, "--backend", b.URL)
	f("backend", doctor.Wrong, 1, "--backend", "http://"+freeAddress(t), "--slot-dir", b.SlotDir)
	f("slot directory", doctor.Wrong, 1, "--backend", b.URL, "--slot-dir", "/nowhere")
	f("index", doctor.Wrong, 1, append(good, "--redis", "redis://"+freeAddress(t))...)
	slow := t.TempDir() + "/slow.yaml"
	if err := os.WriteFile(slow, []byte("index: {timeout: 1us}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f("index", doctor.Warning, 1, append(good, "--redis", lab.StartRedis(t).URL, "--config", slow)...)
	mute := lab.StartRedis(t, "--user", "default", "on", "nopass", "~*", "+@all", "-zrevrange")
	f("index", doctor.Wrong, 1, append(good, "--redis", mute.URL)...)
	t.Setenv("KEY", "secret")
	f("backend", doctor.OK, 0, append(good, "--api-key-env", "KEY")...)
	file := t.TempDir() + "/c.yaml"
	if err := os.WriteFile(file, []byte("backend: {api_key: \"${KEY}\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good = append(good, "--config", file)
	short := t.TempDir() + "/secret"
	if err := os.WriteFile(short, []byte("too short"), 0o600); err != nil {
		t.Fatal(err)
	}
	withSecret := t.TempDir() + "/c.yaml"
	if err := os.WriteFile(withSecret, []byte("index: {secret_file: "+short+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f("index secret", doctor.Wrong, 1, "--config", withSecret, "--backend", b.URL, "--slot-dir", b.SlotDir)
	f("context per slot", doctor.Warning, 0, good...)
	f("idle slots", doctor.Warning, 0, good...)
	f("model file", doctor.Warning, 0, append(good, "--model", "/nowhere.gguf")...)
	f("sharing", doctor.Wrong, 1, "--config", file, "--backend", b.URL, "--slot-dir", t.TempDir())
}
