package inject

import (
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/semsharekv/semsharekv/configs"
)

// Prefix begins every annotation of ours.
const Prefix = "semsharekv.io/"

// Annotations that are read or written.
const (
	annotationInject = Prefix + "inject"
	annotationStatus = Prefix + "status"
)

// Settings say what is injected: those of the command's flags, with a pod's
// annotations over them.
type Settings struct {
	// Image is the sidecar's image; its entrypoint is semsharekv.
	Image      string
	PullPolicy corev1.PullPolicy
	// PullSecret names a Secret in the pod's namespace by which the image is pulled.
	PullSecret string
	// Container names the llama-server's container; empty: found.
	Container string
	// ListenHost is the address that clients use; empty: the server's own.
	ListenHost string
	// ListenPort is the port that clients use; 0: the server's own.
	ListenPort int
	// BackendPort is where the server is moved to, AdminPort where the sidecar's
	// admin side listens; 0: the first free one from the usual on.
	BackendPort, AdminPort int
	// SlotPath is where the slot directory is mounted.
	SlotPath string
	// SlotSize bounds the slot directory, which lies in memory.
	SlotSize resource.Quantity
	// Budget is the most that references take of it; zero: half of it, for
	// the rest is needed for states in flight.
	Budget resource.Quantity
	// ServerMemory is raise (the server's memory request and limit grow by
	// SlotSize, since what it writes there counts as its own) or keep.
	ServerMemory string
	// Reuse is off, exact or fuzzy; empty: what the configuration says.
	Reuse string
	// Config names a ConfigMap with the key semsharekv.yaml.
	Config string
	// Agent has the agent library loaded into the server.
	Agent bool
	// RunAsUser is the sidecar's user; nil: the server's.
	RunAsUser *int64
	LogLevel  string
	// Requests and Limits are the sidecar's, over what it gets otherwise.
	Requests, Limits corev1.ResourceList
}

// DefaultSettings lack the image, which has no default.
func DefaultSettings() Settings {
	return Settings{
		PullPolicy:   corev1.PullIfNotPresent,
		SlotPath:     "/semsharekv/slots",
		SlotSize:     resource.MustParse("4Gi"),
		ServerMemory: "raise",
		Requests:     corev1.ResourceList{},
		Limits:       corev1.ResourceList{},
	}
}

// annotations are those that a pod can set, by the name behind the prefix.
var annotations = map[string]func(s *Settings, v string) error{
	"container":    func(s *Settings, v string) error { s.Container = v; return nil },
	"image":        func(s *Settings, v string) error { s.Image = v; return image(v) },
	"pull-secret":  func(s *Settings, v string) error { s.PullSecret = v; return notEmpty(v) },
	"listen-host":  func(s *Settings, v string) error { s.ListenHost = v; return address(v) },
	"listen-port":  func(s *Settings, v string) error { return port(&s.ListenPort, v) },
	"backend-port": func(s *Settings, v string) error { return port(&s.BackendPort, v) },
	"admin-port":   func(s *Settings, v string) error { return port(&s.AdminPort, v) },
	"slot-path": func(s *Settings, v string) error {
		if s.SlotPath = path.Clean(v); !path.IsAbs(v) || s.SlotPath == "/" || strings.ContainsAny(v, ":$") {
			return fmt.Errorf("want an absolute path")
		}
		for _, own := range []string{agentPath, configPath, programPath} {
			if overlap(s.SlotPath, own) {
				return fmt.Errorf("want a path that neither is, has nor lies in %s", own)
			}
		}
		return nil
	},
	"slot-size":      func(s *Settings, v string) error { return quantity(&s.SlotSize, v) },
	"budget":         func(s *Settings, v string) error { return quantity(&s.Budget, v) },
	"server-memory":  func(s *Settings, v string) error { return oneOf(&s.ServerMemory, v, "raise", "keep") },
	"reuse":          func(s *Settings, v string) error { return oneOf(&s.Reuse, v, configs.Reuses...) },
	"config":         func(s *Settings, v string) error { s.Config = v; return notEmpty(v) },
	"agent":          func(s *Settings, v string) (err error) { s.Agent, err = truth(v); return err },
	"log-level":      func(s *Settings, v string) error { return oneOf(&s.LogLevel, v, configs.LogLevels...) },
	"run-as-user":    func(s *Settings, v string) error { return user(&s.RunAsUser, v) },
	"cpu-request":    func(s *Settings, v string) error { return amount(s.Requests, corev1.ResourceCPU, v) },
	"cpu-limit":      func(s *Settings, v string) error { return amount(s.Limits, corev1.ResourceCPU, v) },
	"memory-request": func(s *Settings, v string) error { return amount(s.Requests, corev1.ResourceMemory, v) },
	"memory-limit":   func(s *Settings, v string) error { return amount(s.Limits, corev1.ResourceMemory, v) },
}

// with returns the settings with a pod's annotations over them. One that is not
// known is refused: it is more likely misspelt than meant for nobody.
func (s Settings) with(pod map[string]string) (Settings, error) {
	s.Requests, s.Limits = maps.Clone(s.Requests), maps.Clone(s.Limits)
	for _, key := range slices.Sorted(maps.Keys(pod)) {
		short, ours := strings.CutPrefix(key, Prefix)
		if !ours || key == annotationInject || key == annotationStatus {
			continue
		}
		put := annotations[short]
		if put == nil {
			return s, refuse(kindAnnotation, "annotation %s is not known", key)
		}
		if err := put(&s, pod[key]); err != nil {
			return s, refuse(kindAnnotation, "annotation %s is %q; %v", key, pod[key], err)
		}
	}
	return s, nil
}

func notEmpty(v string) error {
	if v == "" {
		return fmt.Errorf("want a name")
	}
	return nil
}

// image checks what the API server would refuse the whole pod for.
func image(v string) error {
	if v == "" || strings.ContainsFunc(v, unicode.IsSpace) {
		return fmt.Errorf("want an image's name without spaces")
	}
	return nil
}

func address(v string) error {
	if v != "localhost" && net.ParseIP(v) == nil {
		return fmt.Errorf("want an address, as 0.0.0.0 or 127.0.0.1")
	}
	return nil
}

func port(p *int, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("want a port, 1 to 65535")
	}
	*p = n
	return nil
}

func quantity(q *resource.Quantity, v string) error {
	n, err := resource.ParseQuantity(v)
	if err != nil || n.Sign() <= 0 {
		return fmt.Errorf("want a size like 4Gi")
	}
	*q = n
	return nil
}

func amount(list corev1.ResourceList, name corev1.ResourceName, v string) error {
	var q resource.Quantity
	if err := quantity(&q, v); err != nil {
		return fmt.Errorf("want a quantity like 500m or 1Gi")
	}
	list[name] = q
	return nil
}

func oneOf(p *string, v string, want ...string) error {
	if !slices.Contains(want, v) {
		return fmt.Errorf("want one of %s", strings.Join(want, ", "))
	}
	*p = v
	return nil
}

func truth(v string) (bool, error) {
	if v != "true" && v != "false" {
		return false, fmt.Errorf("want true or false")
	}
	return v == "true", nil
}

func user(p **int64, v string) error {
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("want a user's number")
	}
	*p = &n
	return nil
}

// Check reports the first of the settings that cannot be.
func (s *Settings) Check() error {
	if err := image(s.Image); err != nil {
		return fmt.Errorf("the image is %q; %w", s.Image, err)
	}
	switch s.PullPolicy {
	case corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		return fmt.Errorf("the image pull policy is %q; want Always, IfNotPresent or Never", s.PullPolicy)
	}
	if s.Reuse != "" && !slices.Contains(configs.Reuses, s.Reuse) {
		return fmt.Errorf("reuse is %q; want one of %s", s.Reuse, strings.Join(configs.Reuses, ", "))
	}
	if s.SlotSize.Sign() <= 0 {
		return fmt.Errorf("the slot directory's size is %s; want more than 0", s.SlotSize.String())
	}
	if s.Budget.Cmp(s.SlotSize) > 0 {
		return fmt.Errorf("the budget of %s exceeds the slot directory's %s", s.Budget.String(), s.SlotSize.String())
	}
	return nil
}
