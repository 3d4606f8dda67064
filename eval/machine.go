package eval

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Machine is where the run took place.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	OS    string `json:"os"`
}

// Model is what the backend served.
type Model struct {
	Build string `json:"build"`
	Name  string `json:"model"`
	// SHA256 of the model file; "" where it cannot be read from here.
	SHA256  string `json:"model_sha256"`
	Context int    `json:"n_ctx"` // tokens of one slot
	Slots   int    `json:"slots"`
}

func thisMachine() Machine {
	return Machine{CPU: cpuName(), Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH}
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

func fileHash(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

func describeBackend(p *props, modelPath string) Model {
	if modelPath == "" {
		modelPath = p.ModelPath
	}
	return Model{Build: p.Build, Name: filepath.Base(modelPath), SHA256: fileHash(modelPath), Context: p.Defaults.Context, Slots: p.Slots}
}
