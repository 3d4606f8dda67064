package inject

import "fmt"

// Refusal says why a pod is left as it is. Kind is of a fixed set, since it
// labels a metric; the text names the thing, its value, and what would be right.
type Refusal struct {
	Kind string
	Text string
}

func (r *Refusal) Error() string { return r.Text }

// The kinds of refusal.
const (
	kindAnnotation = "annotation" // one of ours is not valid
	kindContainer  = "container"  // no llama-server, or several
	kindCommand    = "command"    // the command is a shell line or unknown
	kindServer     = "server"     // an option of the server rules sharing out
	kindPort       = "port"       // the ports cannot be arranged
	kindVolume     = "volume"     // the slot directory cannot be arranged
	kindName       = "name"       // a name of ours is taken
	kindUser       = "user"       // the server's user is not known
	kindPod        = "pod"        // hostNetwork, Windows, a static pod
	kindKubernetes = "kubernetes" // too old for native sidecars
	kindObject     = "object"     // not a pod that can be read
)

func refuse(kind, format string, args ...any) error {
	return &Refusal{Kind: kind, Text: fmt.Sprintf(format, args...)}
}
