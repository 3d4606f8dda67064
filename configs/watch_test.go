package configs

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWatcherKeepsTheLastGoodOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	writeFile(t, file, base+"defaults: {seam: 1}")
	w, err := NewWatcher(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	reloads, failures := 0, 0
	w.Changed = func(*Config) { reloads++ }
	w.Failed = func(error) { failures++ }
	check := func(seam, wantReloads, wantFailures int) {
		t.Helper()
		if now := w.Current().Defaults.Seam; now != seam || reloads != wantReloads || failures != wantFailures {
			t.Errorf("seam %d, %d reloads, %d failures; want %d, %d, %d", now, reloads, failures, seam, wantReloads, wantFailures)
		}
	}
	w.Poll()
	check(1, 0, 0)

	writeFile(t, file, base+"defaults: {seam: 22}")
	w.Poll()
	w.Poll()
	check(22, 1, 0)

	writeFile(t, file, base+"defaults: {seam: many}")
	w.Poll()
	w.Poll()
	check(22, 1, 1)

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.Poll() // perhaps only being replaced
	check(22, 1, 1)

	writeFile(t, file, base+"defaults: {seam: 3}")
	w.Poll()
	check(3, 2, 1)
}

// A ConfigMap is mounted as c.yaml -> ..data/c.yaml with ..data -> a folder that
// is swapped.
func TestWatcherSeesASwappedConfigMap(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "v1", "c.yaml"), base+"defaults: {seam: 1}")
	writeFile(t, filepath.Join(dir, "v2", "c.yaml"), base+"defaults: {seam: 2}")
	// Same size and time: only the inode differs.
	now := time.Now()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Chtimes(filepath.Join(dir, v, "c.yaml"), now, now); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link("..data/c.yaml", "c.yaml")
	w, err := NewWatcher(filepath.Join(dir, "c.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	link("v2", "..data_tmp")
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	w.Poll()
	if seam := w.Current().Defaults.Seam; seam != 2 {
		t.Errorf("seam %d after the swap, want 2", seam)
	}
}

func TestWatcherReloadsOnSignal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	writeFile(t, file, base)
	w, err := NewWatcher(file, func(c *Config) { c.Listen = ":1" })
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan *Config, 1)
	w.Changed = func(c *Config) { changed <- c }
	ctx, cancel := context.WithCancel(context.Background())
	hup := make(chan os.Signal, 1)
	done := make(chan struct{})
	go func() {
		w.Run(ctx, time.Hour, hup)
		close(done)
	}()
	hup <- syscall.SIGHUP
	if c := <-changed; c.Listen != ":1" {
		t.Errorf("listen is %q after a reload, want the flag's", c.Listen)
	}
	cancel()
	<-done
}
