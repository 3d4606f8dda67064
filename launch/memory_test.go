package launch

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryIsThatOfTheContainer(t *testing.T) {
	const machine = "MemTotal: 99 kB\nMemAvailable:   4096 kB\n"
	f := func(what string, files map[string]string, want int64) {
		t.Helper()
		root := t.TempDir()
		for name, text := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := availableMemory(root); got != want {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
	}
	f("nothing tells", nil, 0)
	f("no control group", map[string]string{"proc/meminfo": machine}, 4<<20)
	f("the machine has less than the group", map[string]string{
		"proc/meminfo":                 machine,
		"proc/self/cgroup":             "0::/\n",
		"sys/fs/cgroup/memory.max":     "99999999\n",
		"sys/fs/cgroup/memory.current": "1000\n",
	}, 4<<20)
	f("a container", map[string]string{
		"proc/meminfo":                 machine,
		"proc/self/cgroup":             "0::/\n",
		"sys/fs/cgroup/memory.max":     "3000000\n",
		"sys/fs/cgroup/memory.current": "1000000\n",
	}, 2000000)
	f("a container that has read files", map[string]string{
		"proc/meminfo":                 machine,
		"proc/self/cgroup":             "0::/\n",
		"sys/fs/cgroup/memory.max":     "3000000\n",
		"sys/fs/cgroup/memory.current": "2900000\n",
		"sys/fs/cgroup/memory.stat":    "anon 100000\ninactive_file 2000000\nactive_file 5\n",
	}, 2100000)
	f("a limit further up", map[string]string{
		"proc/meminfo":                          machine,
		"proc/self/cgroup":                      "0::/pods/one\n",
		"sys/fs/cgroup/pods/one/memory.max":     "max\n",
		"sys/fs/cgroup/pods/one/memory.current": "5\n",
		"sys/fs/cgroup/pods/memory.max":         "3000\n",
		"sys/fs/cgroup/pods/memory.current":     "1000\n",
	}, 2000)
	f("more than the limit", map[string]string{
		"proc/self/cgroup":             "0::/\n",
		"sys/fs/cgroup/memory.max":     "3000\n",
		"sys/fs/cgroup/memory.current": "4000\n",
	}, 1)
	f("version 1, a path of the host's", map[string]string{
		"proc/meminfo":     machine,
		"proc/self/cgroup": "9:cpu:/docker/1\n4:memory:/docker/1\n0::/\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
		"sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
	}, 2000)
}
