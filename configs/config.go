// Package configs holds the configuration of the sidecar: one struct tree that
// is decoded strictly from YAML, given its defaults, and validated once. It
// reads files and reports what is wrong in them; it starts nothing and knows
// nothing of HTTP or of KV caches.
//
// The comments of the fields below are the options' documentation: the example
// file, the JSON schema and the README's table are made from them.
package configs

//go:generate go run ./gen

import (
	"slices"
	"time"
)

// What some options may be, for those who check or offer their values too. The tags of
// the fields say the same.
var (
	LogLevels = []string{"trace", "debug", "info", "warn", "error"}
	Ways      = []string{"auto", "slot", "agent"}
	Reuses    = []string{string(ReuseOff), string(ReuseExact), string(ReuseFuzzy)}
)

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
	// Routes are tried in order; the first whose match fits decides. A route has
	// a name, a match, and any of the fields of defaults. One without a match fits
	// every request, and must be the last.
	Routes []Route `yaml:"routes" json:"routes"`
}

// Backend says where the llama-server is and how it is reached.
type Backend struct {
	// URL is the base URL of the llama-server, without /v1.
	URL string `yaml:"url" json:"url"`
	// SlotDir is the directory given to the server as --slot-save-path, as seen
	// by the sidecar.
	SlotDir string `yaml:"slot_dir" json:"slot_dir"`
	// Model is the GGUF file as seen by the sidecar. Empty: the path that the
	// backend's /props names.
	Model string `yaml:"model" json:"model"`
	// APIKey is sent to the backend with the sidecar's own requests. Of a list,
	// with commas between, it is the first.
	APIKey string `yaml:"api_key" json:"api_key"`
	// Connect bounds the dialling of one connection.
	Connect time.Duration `yaml:"connect_timeout" json:"connect_timeout"`
	// Threads is how many threads compose a state; 0 means all CPUs, at
	// most 8.
	Threads int `yaml:"threads" json:"threads" jsonschema:"minimum=0"`
	// Way is how slots are filled: agent (libsemshare-agent.so inside the server
	// composes and recomputes), slot (through saved states and stages; any
	// llama-server), or auto (the agent where the server has one).
	Way string `yaml:"way" json:"way" jsonschema:"enum=auto,enum=slot,enum=agent"`
	// Library is the path of libsemshare.so; empty means beside the program.
	Library string `yaml:"library" json:"library"`
}

// Limits bound what one client can ask of the sidecar.
type Limits struct {
	// Body is the largest request body, as sent and as unpacked.
	Body int64 `yaml:"body_bytes" json:"body_bytes" unit:"bytes"`
	// Connections is how many clients may be connected at once.
	Connections int `yaml:"connections" json:"connections" jsonschema:"minimum=1"`
	// Idle is how long a connection without a request is kept, and how long a client may
	// send nothing of its request, or take nothing of its answer.
	Idle time.Duration `yaml:"idle_timeout" json:"idle_timeout"`
	// Drain is how long running requests may take to end after SIGTERM.
	Drain time.Duration `yaml:"drain_timeout" json:"drain_timeout"`
	// SlotWait bounds how long a generation request waits for a free slot of its own
	// before the server is left to choose. Where tenants are kept apart, one that needs
	// all slots is then refused (503), and any other waits on.
	SlotWait time.Duration `yaml:"slot_wait" json:"slot_wait"`
}

// Index says where fingerprints are kept.
type Index struct {
	// Redis is a redis://, rediss://, redis+sentinel:// or redis+cluster:// URL, or
	// unix:///PATH of a socket; empty means embedded.
	Redis string `yaml:"redis" json:"redis"`
	// Timeout bounds one look-up, on a connection that is kept ready; a slower
	// Redis means a cold request.
	Timeout time.Duration `yaml:"timeout" json:"timeout"`
	// TTL is how long an entry lives after it was last written.
	TTL time.Duration `yaml:"ttl" json:"ttl"`
	// Prefix starts every key.
	Prefix string `yaml:"prefix" json:"prefix"`
	// SecretFile holds the HMAC key; empty means one made at first start and
	// kept in the slot directory.
	SecretFile string `yaml:"secret_file" json:"secret_file"`
}

// Store bounds the references kept on disk.
type Store struct {
	// Budget is the most that all references together may take, checked before
	// one is saved.
	Budget int64 `yaml:"budget_bytes" json:"budget_bytes" unit:"bytes"`
	// MinTokens is the shortest prompt kept as a reference.
	MinTokens int `yaml:"min_tokens" json:"min_tokens" jsonschema:"minimum=1"`
	// MaxGeneration is the highest generation kept: 0 keeps only prompts that
	// the model itself computed, 1 also those that the agent composed from such
	// and of which a part is new (novelty), 2 also those composed by the slot
	// way: approximations add up.
	MaxGeneration int `yaml:"max_generation" json:"max_generation" jsonschema:"minimum=0"`
	// Novelty is the highest similarity to a kept reference at which a prompt
	// is still kept as one of its own.
	Novelty float64 `yaml:"novelty" json:"novelty" jsonschema:"minimum=0,maximum=1"`
	// Compress is how the keys and values of references are kept where the server
	// has them in f16, bf16 or f32: q8_0 (53 % of the bytes of f16), q8_0/q5_1
	// (keys in q8_0, values in q5_1: 45 %), or off (as the server saved them).
	Compress string `yaml:"compress" json:"compress" jsonschema:"enum=off,enum=q8_0,enum=q8_0/q5_1"`
}

// Log says how much is logged and in which form.
type Log struct {
	// Level is the least severe level that is logged.
	Level string `yaml:"level" json:"level" jsonschema:"enum=trace,enum=debug,enum=info,enum=warn,enum=error"`
	// Format is json, or console for reading by eye.
	Format string `yaml:"format" json:"format" jsonschema:"enum=json,enum=console"`
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
// field that is left out is the default's.
type Policy struct {
	// Reuse is off (pass through), exact (choose the slot with the longest exact
	// prefix that the model itself computed) or fuzzy (also compose the KV of similar
	// prompts).
	Reuse Reuse `yaml:"reuse" json:"reuse" jsonschema:"enum=off,enum=exact,enum=fuzzy"`
	// MinTokens is the shortest prompt that is looked up.
	MinTokens int `yaml:"min_tokens" json:"min_tokens" jsonschema:"minimum=1"`
	// MinSimilarity is the least share of a prompt's tokens that must have a
	// counterpart in the references, 0 to 1.
	MinSimilarity float64 `yaml:"min_similarity" json:"min_similarity" jsonschema:"minimum=0,maximum=1"`
	// Critical names the kinds of token that are never taken over where they
	// differ: number, negation, name, identifier.
	Critical []string `yaml:"critical" json:"critical" jsonschema:"enum=number,enum=negation,enum=name,enum=identifier,uniqueItems=true"`
	// Unrepaired is what happens from the first token on that should be
	// recomputed and cannot be within reason: cold (compute the rest of the
	// prompt) or accept (take the reference's KV as it is). The agent can recompute
	// all; by accept it takes over words that have one of their kind in the
	// reference (a synonym, but also an opposite or another colour), and nothing
	// else that differs.
	Unrepaired Unrepaired `yaml:"unrepaired" json:"unrepaired" jsonschema:"enum=cold,enum=accept"`
	// Tenant says who a request belongs to.
	Tenant Tenant `yaml:"tenant" json:"tenant"`
	// Budget is the time for deciding: tokens, look-up and alignment; where 2 % of what
	// the prompt is expected to take cold is more, it is that. A request that exceeds it
	// goes cold.
	Budget time.Duration `yaml:"time_budget" json:"time_budget"`
	// RepairShare bounds, by the slot way and under unrepaired: accept, the time spent
	// on recomputing as a share of the cold prefill, 0 to 1.
	RepairShare float64 `yaml:"repair_share" json:"repair_share" jsonschema:"minimum=0,maximum=1"`
	// References bounds how many references one prompt may draw on.
	References int `yaml:"references" json:"references" jsonschema:"minimum=1,maximum=64"`
	// Quality is what sharing may cost. With a target, and where the model is calibrated
	// (semsharekv calibrate; SmolLM2-135M and Qwen2.5-Coder-0.5B come so), it takes the
	// place of agent_share_first, agent_share_last and agent_attended, and takes off seam
	// and agent_followers what the defaults have too much, but nothing where the policy
	// computes less than they do (quality.kl).
	Quality Quality `yaml:"quality" json:"quality"`
	// Followers is how many tokens after an unmatched run are recomputed.
	Followers int `yaml:"followers" json:"followers" jsonschema:"minimum=0"`
	// CriticalFollowers is how many tokens after a critical one are recomputed; where few
	// words differ, after any.
	CriticalFollowers int `yaml:"critical_followers" json:"critical_followers" jsonschema:"minimum=0"`
	// Seam is how many tokens are recomputed after the source jumps, where the passage
	// stands or stood within the first 256 tokens; elsewhere it is a quarter of it, and by
	// the slot way four times as much where a passage that opened its reference has come
	// to stand behind others.
	Seam int `yaml:"seam" json:"seam" jsonschema:"minimum=0"`
	// AgentFollowers is followers where the agent recomputes.
	AgentFollowers int `yaml:"agent_followers" json:"agent_followers" jsonschema:"minimum=0"`
	// AgentShareFirst is the share of a prompt's tokens that the agent recomputes
	// in the third layer, besides those that differ, because their values deviate
	// most; 0 to 1. With more than 0 all tokens are recomputed in the first two
	// layers. It counts only where quality.kl is 0 or has no calibration to go by.
	AgentShareFirst float64 `yaml:"agent_share_first" json:"agent_share_first" jsonschema:"minimum=0,maximum=1"`
	// AgentShareLast is that share in the last layer, to which it falls
	// exponentially; at most agent_share_first, and counts where that does.
	AgentShareLast float64 `yaml:"agent_share_last" json:"agent_share_last" jsonschema:"minimum=0,maximum=1"`
	// AgentAttended is the share of the tokens before which much of the text changed
	// since their reference (passages in another order, rewritten documents) that the
	// agent recomputes as well: those that the first tokens of an answer, drafted for
	// that, attend to most; 0 to 1. It is done where a third of the prompt and more are
	// such tokens. With 0 documents in another order start almost twice as soon, and
	// lose half as much again. It counts only where quality.kl is 0 or has no
	// calibration to go by.
	AgentAttended float64 `yaml:"agent_attended" json:"agent_attended" jsonschema:"minimum=0,maximum=1"`
	// Retention is the share of a shared prompt's KV cells that the agent puts into
	// the cache: those that the first tokens of an answer, drafted for that, attend to
	// most. 1 is all of them; 0.58 leaves room for 1.7 times as many prompts.
	Retention float64 `yaml:"retention" json:"retention" jsonschema:"exclusiveMinimum=0,maximum=1"`
}

// Quality is what sharing may cost in fidelity.
type Quality struct {
	// KL is the divergence of the answers from unshared ones to expect, in nats a
	// token, on average over prompts like those that calibrated the model: where it
	// allows that the agent recomputes less of seams and not what follows changed
	// tokens; where it must it recomputes tokens that deviate, or that an answer
	// attends to, as well. 0 is no target. It does not hold where a policy computes less
	// than the defaults: by unrepaired: accept, fewer kinds of critical, or less of seam,
	// agent_followers or critical_followers; nothing more is left out there.
	KL float64 `yaml:"kl" json:"kl" jsonschema:"minimum=0"`
}

// Tenant says who a request belongs to. No identity, no sharing.
type Tenant struct {
	// Source is shared (all requests are of the one tenant that name names),
	// header (the value of the header that name names) or api_key (the hash of
	// the bearer token or X-Api-Key). Requests without an identity are not
	// shared.
	Source string `yaml:"source" json:"source" jsonschema:"enum=shared,enum=header,enum=api_key"`
	// Name is the tenant's or the header's name; it goes with source, and is not
	// inherited by a route that sets another source.
	Name string `yaml:"name" json:"name"`
}

// Apart reports whether the configuration knows more than one tenant. What one of them
// leaves in the backend's slots must then not be found by another.
func (c *Config) Apart() bool {
	first := c.Defaults.Tenant
	if first.Source != "shared" {
		return true
	}
	return slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Tenant != first })
}

// Route is one rule.
type Route struct {
	// Name stands in the log.
	Name string `yaml:"name" json:"name"`
	// Match fits a request when every field that is set fits.
	Match Match `yaml:"match" json:"match"`
	// Policy holds the fields set in the route over those of Defaults; it is
	// complete after loading.
	Policy `yaml:",inline" json:",inline"`
}

// Match fits a request when every field that is set fits.
type Match struct {
	// Path is a pattern for the request's path, in which * stands for anything
	// but a slash.
	Path string `yaml:"path" json:"path"`
	// Model is a pattern for the model that the body names, in which * stands for
	// anything, slashes too.
	Model string `yaml:"model" json:"model"`
	// Headers are exact values of request headers.
	Headers map[string]string `yaml:"headers" json:"headers"`
}

// all tells whether the match fits every request.
func (m *Match) all() bool { return m.Path == "" && m.Model == "" && len(m.Headers) == 0 }
