package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// availableMemory is what can be had without swapping: of the machine, and of the control
// groups that this process is in, as in a container. 0 where nothing tells. root is "/", but
// for tests.
func availableMemory(root string) int64 {
	least := machineMemory(root)
	for _, room := range groupMemory(root) {
		if least == 0 || room < least {
			least = room
		}
	}
	return least
}

// machineMemory is what the kernel says the machine has available, or 0.
func machineMemory(root string) int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// controller is where a version of control groups has its files.
type controller struct{ top, limit, usage, reclaimable string }

// controllers by the name that /proc/self/cgroup gives them; version 2 has none.
var controllers = map[string]controller{
	"":       {"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
	"memory": {"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
}

// groupMemory is what each of the control groups with a limit has left.
func groupMemory(root string) []int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var rooms []int64
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(f) != 3 {
			continue
		}
		if c, ok := controllers[f[1]]; ok {
			rooms = append(rooms, c.rooms(root, filepath.Clean("/"+f[2]))...)
		}
	}
	return rooms
}

// rooms looks at a group and all above it. What is not there is passed over: a container may
// see its own group at the top, and be told a path that only its host has.
func (c controller) rooms(root, path string) (all []int64) {
	for ; ; path = filepath.Dir(path) {
		dir := filepath.Join(root, c.top, path)
		limit, noLimit := number(filepath.Join(dir, c.limit))
		used, noUsage := number(filepath.Join(dir, c.usage))
		if noLimit == nil && noUsage == nil {
			free := limit - used + c.cached(dir)
			all = append(all, max(1, free)) // 0 would be not known
		}
		if path == "/" {
			return all
		}
	}
}

// cached is what counts as used and is given back on demand: files that were read, a model
// that was just downloaded, say.
func (c controller) cached(dir string) (n int64) {
	text, _ := os.ReadFile(filepath.Join(dir, "memory.stat"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == c.reclaimable {
			n, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return n
}

// number reads a file with a number in it; "max", no limit, is none.
func number(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
