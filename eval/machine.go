package eval

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Machine is where the run took place.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	OS    string `json:"os"`
	GPU   string `json:"gpu,omitempty"` // NVIDIA's, by their names
}

// Model is what the backend served.
type Model struct {
	Build string `json:"build"`
	Name  string `json:"model"`
	// SHA256 of the model file; "" where it cannot be read from here, or is too large.
	SHA256  string `json:"model_sha256"`
	Context int    `json:"n_ctx"` // tokens of one slot
	Slots   int    `json:"slots"`
}

func thisMachine() Machine {
	return Machine{CPU: cpuName(), Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, GPU: gpuNames()}
}

// gpuNames asks NVIDIA's own tool; "" where there is none.
func gpuNames() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=name", "--format=csv,noheader").Output()
	if err != nil {
		return ""
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), ", ")
}

func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// maxHashed is the size of the largest model file that is hashed: it takes seconds.
const maxHashed = 4 << 30

func fileHash(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() > maxHashed {
		return ""
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// describeBackend describes a server whose model file has the given path and hash.
func describeBackend(p *props, model, hash string) Model {
	return Model{Build: p.Build, Name: filepath.Base(model), SHA256: hash, Context: p.Defaults.Context, Slots: p.Slots}
}
