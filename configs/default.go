package configs

import "time"

// Default returns the configuration of an empty file. It lacks the backend's
// URL and slot directory, which have no default.
func Default() *Config {
	return &Config{
		Listen:  "127.0.0.1:8080",
		Admin:   "127.0.0.1:8090",
		Backend: Backend{Connect: 2 * time.Second, Way: "auto"},
		Limits: Limits{
			Body:        64 << 20,
			Connections: 4096,
			Idle:        time.Minute,
			Drain:       30 * time.Second,
			SlotWait:    time.Minute,
		},
		Index: Index{
			Timeout: 50 * time.Millisecond,
			TTL:     24 * time.Hour,
			Prefix:  "semsharekv:",
		},
		Store: Store{
			Budget:        8 << 30,
			MinTokens:     256,
			MaxGeneration: 1,
			Novelty:       0.9,
			Compress:      "q8_0",
		},
		Log:      Log{Level: "info", Format: "json"},
		Defaults: defaultPolicy(),
	}
}

func defaultPolicy() Policy {
	return Policy{
		Reuse:             ReuseFuzzy,
		MinTokens:         256,
		MinSimilarity:     0.5,
		Critical:          []string{"number", "negation", "name", "identifier"},
		Unrepaired:        UnrepairedCold,
		Tenant:            Tenant{Source: "shared", Name: "default"},
		Budget:            250 * time.Millisecond,
		RepairShare:       0.03,
		References:        4,
		Followers:         2,
		CriticalFollowers: 6,
		Seam:              64,
		AgentFollowers:    1,
		AgentAttended:     0.04,
		Quality:           Quality{KL: 0.012},
		Retention:         1,
	}
}
