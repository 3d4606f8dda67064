package configs

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Watcher holds the last good configuration of a file and reads the file again
// when it changes. It polls the file's stat: inotify misses the way in which
// Kubernetes swaps a ConfigMap, by renaming a directory that a link points
// through.
type Watcher struct {
	file     string
	override func(*Config)
	// Changed is called with each good configuration after the first, and Failed
	// with the error of each bad one. Both may be nil; set them before Run.
	Changed func(*Config)
	Failed  func(error)

	current atomic.Pointer[Config]
	mu      sync.Mutex
	seen    fileID // of what was read last
	found   fileID // at the last poll
	unread  string // the error, while a file cannot be read, that was told
	empty   bool   // the file in force says nothing
}

// fileID changes when a file is written or another one is put in its place.
type fileID struct {
	inode, dev uint64
	size       int64
	mtime      time.Time
}

// NewWatcher reads the file for the first time; override is as in Load.
func NewWatcher(file string, override func(*Config)) (*Watcher, error) {
	w := &Watcher{file: file, override: override, empty: true}
	c, err := w.load()
	if err != nil {
		return nil, err
	}
	w.current.Store(c)
	return w, nil
}

// Current is the configuration in force. It is not changed once returned.
func (w *Watcher) Current() *Config { return w.current.Load() }

// Run looks at the file every so often, and whenever something arrives on
// reload (SIGHUP), until the context ends.
func (w *Watcher) Run(ctx context.Context, every time.Duration, reload <-chan os.Signal) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
			w.Reload()
		case <-tick.C:
			w.Poll()
		}
	}
}

// Poll reloads when the file is not the one that was read last, and is what it was at the
// last poll: one that changed in between is still being written. A file that cannot be read is
// tried again at each poll, and the error told once.
func (w *Watcher) Poll() {
	if w.file == "" {
		return
	}
	w.mu.Lock()
	id, err := identify(w.file)
	// A file that is gone for a moment is one that is being replaced.
	settled := err == nil && id != w.seen && id == w.found
	w.found = id
	w.mu.Unlock()
	if settled {
		w.reload(true)
	}
}

// Reload reads the file now. A bad one leaves the last good one in force.
func (w *Watcher) Reload() { w.reload(false) }

// reload is Reload; quiet does not tell once more why the file cannot be read.
func (w *Watcher) reload(quiet bool) {
	w.mu.Lock()
	told := w.unread
	c, err := w.load()
	if err == nil {
		w.current.Store(c)
	}
	again := w.unread != "" && w.unread == told
	w.mu.Unlock()
	if err == nil && w.Changed != nil {
		w.Changed(c)
	}
	if err != nil && w.Failed != nil && !(quiet && again) {
		w.Failed(err)
	}
}

// load reads the file. One that says nothing is refused in the place of one that does: it
// is more likely cut off than meant, and could make one tenant of all.
func (w *Watcher) load() (*Config, error) {
	// Identified before it is read: a change in between is seen at the next poll.
	id, _ := identify(w.file)
	text, err := read(w.file)
	if err != nil {
		w.unread = err.Error()
		return nil, err
	}
	w.seen, w.unread = id, ""
	c, err := Parse(w.file, text, w.override)
	if err != nil {
		return nil, err
	}
	empty := !gives(text, "")
	if empty && !w.empty {
		return nil, fmt.Errorf("%s is empty, and the configuration in force is not; {} takes all options back", w.file)
	}
	w.empty = empty
	return c, nil
}

// identify follows links, so that a swapped link is a changed file.
func identify(file string) (fileID, error) {
	info, err := os.Stat(file)
	if err != nil {
		return fileID{}, err
	}
	id := fileID{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode, id.dev = st.Ino, uint64(st.Dev)
	}
	return id, nil
}
