// Package configs holds the configuration of the sidecar: one struct tree that
// is decoded strictly from YAML, given its defaults, and validated once. It
// reads files and reports what is wrong in them; it starts nothing and knows
// nothing of HTTP or of KV caches.
package configs

import "time"

// Config is the whole configuration. The zero value is not usable: start from
// Default.
type Config struct {
	// Listen is the address that clients talk to.
	Listen string `yaml:"listen" json:"listen"`
	// Admin is the address of /healthz, /readyz and /metrics.
	Admin   string  `yaml:"admin" json:"admin"`
	Backend Backend `yaml:"backend" json:"backend"`
	Limits  Limits  `yaml:"limits" json:"limits"`
	Index   Index   `yaml:"index" json:"index"`
	Store   Store   `yaml:"store" json:"store"`
	Log     Log     `yaml:"log" json:"log"`
	// Defaults are the settings of a request that no route matches, and of every
	// field that a route leaves out.
	Defaults Policy `yaml:"defaults" json:"defaults"`
	// Routes are tried in order; the first whose Match fits decides.
	Routes []Route `yaml:"routes" json:"routes"`
}

// Backend says where the llama-server is and how it is reached.
type Backend struct {
	URL string `yaml:"url" json:"url"`
	// SlotDir is the directory given to the server as --slot-save-path, as seen
	// by the sidecar.
	SlotDir string `yaml:"slot_dir" json:"slot_dir"`
	// Model is the GGUF file as seen by the sidecar. Empty: the path that the
	// backend's /props names.
	Model string `yaml:"model" json:"model"`
	// APIKey is sent to the backend with the sidecar's own requests.
	APIKey string `yaml:"api_key" json:"api_key"`
	// Connect bounds the dialling of one connection.
	Connect time.Duration `yaml:"connect_timeout" json:"connect_timeout"`
	// Threads used to compose a state; 0 means half the CPUs, at least 1.
	Threads int `yaml:"threads" json:"threads"`
	// Library is the path of libsemshare.so; empty means beside the program.
	Library string `yaml:"library" json:"library"`
}

// Limits bound what one client can ask of the sidecar.
type Limits struct {
	Body        int64         `yaml:"body_bytes" json:"body_bytes"`
	Connections int           `yaml:"connections" json:"connections"`
	Idle        time.Duration `yaml:"idle_timeout" json:"idle_timeout"`
	Drain       time.Duration `yaml:"drain_timeout" json:"drain_timeout"`
	// SlotWait bounds how long a generation request waits for a free slot of
	// its own choosing before the server is left to choose.
	SlotWait time.Duration `yaml:"slot_wait" json:"slot_wait"`
}

// Index says where fingerprints are kept.
type Index struct {
	// Redis is a redis://, rediss://, redis+sentinel:// or redis+cluster:// URL;
	// empty means embedded.
	Redis string `yaml:"redis" json:"redis"`
	// Timeout bounds one look-up; a slower Redis means a cold request.
	Timeout time.Duration `yaml:"timeout" json:"timeout"`
	TTL     time.Duration `yaml:"ttl" json:"ttl"`
	// Prefix starts every key.
	Prefix string `yaml:"prefix" json:"prefix"`
	// SecretFile holds the HMAC key; empty means one made at first start and
	// kept in the slot directory.
	SecretFile string `yaml:"secret_file" json:"secret_file"`
}

// Store bounds the references kept on disk.
type Store struct {
	Budget int64 `yaml:"budget_bytes" json:"budget_bytes"`
	// MinTokens is the shortest prompt kept as a reference.
	MinTokens int `yaml:"min_tokens" json:"min_tokens"`
	// MaxGeneration is the highest generation kept: 0 keeps only prompts that
	// the model itself computed, 1 also those composed from such.
	MaxGeneration int `yaml:"max_generation" json:"max_generation"`
	// Novelty is the highest similarity to a kept reference at which a prompt
	// is still kept as one of its own.
	Novelty float64 `yaml:"novelty" json:"novelty"`
}

// Log says how much is logged and in which form.
type Log struct {
	Level  string `yaml:"level" json:"level"`
	Format string `yaml:"format" json:"format"` // json | console
}

// Reuse is how far a route goes in reusing KV.
type Reuse string

const (
	ReuseOff   Reuse = "off"   // pass through
	ReuseExact Reuse = "exact" // choose the slot with the longest exact prefix
	ReuseFuzzy Reuse = "fuzzy" // compose from similar prompts
)

// Unrepaired is what happens from the first differing token on that the budget
// does not allow to recompute.
type Unrepaired string

const (
	UnrepairedCold   Unrepaired = "cold"   // compute the rest of the prompt
	UnrepairedAccept Unrepaired = "accept" // take the reference's KV as it is
)

// Policy is what a route decides. In Defaults every field is set; in a route a
// nil field means the default's.
type Policy struct {
	Reuse         Reuse         `yaml:"reuse" json:"reuse"`
	MinTokens     int           `yaml:"min_tokens" json:"min_tokens"`
	MinSimilarity float64       `yaml:"min_similarity" json:"min_similarity"`
	Critical      []string      `yaml:"critical" json:"critical"` // number negation name identifier
	Unrepaired    Unrepaired    `yaml:"unrepaired" json:"unrepaired"`
	Tenant        Tenant        `yaml:"tenant" json:"tenant"`
	Budget        time.Duration `yaml:"time_budget" json:"time_budget"` // for deciding: tokens, look-up, alignment
	// RepairShare bounds, under `unrepaired: accept`, the time spent on
	// recomputing as a share of the cold prefill.
	RepairShare float64 `yaml:"repair_share" json:"repair_share"`
	// References bounds how many references one target may draw on.
	References int `yaml:"references" json:"references"`
	// Followers is how many tokens after an unmatched run are recomputed;
	// CriticalFollowers after a critical one; Seam after a seam.
	Followers         int `yaml:"followers" json:"followers"`
	CriticalFollowers int `yaml:"critical_followers" json:"critical_followers"`
	Seam              int `yaml:"seam" json:"seam"`
}

// Tenant says who a request belongs to. No identity, no sharing.
type Tenant struct {
	// Source is shared (one tenant for the route, named by Name), header (the
	// value of the header Name) or api_key (the hash of the bearer token or
	// X-Api-Key).
	Source string `yaml:"source" json:"source"`
	Name   string `yaml:"name" json:"name"`
}

// Route is one rule.
type Route struct {
	Name  string `yaml:"name" json:"name"`
	Match Match  `yaml:"match" json:"match"`
	// Policy holds the fields set in the route over those of Defaults; it is
	// complete after loading.
	Policy `yaml:",inline" json:",inline"`
}

// Match fits a request when every field that is set fits.
type Match struct {
	Path    string            `yaml:"path" json:"path"`       // path.Match pattern
	Model   string            `yaml:"model" json:"model"`     // path.Match pattern on the body's model
	Headers map[string]string `yaml:"headers" json:"headers"` // exact values
}
