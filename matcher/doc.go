// Package matcher finds earlier prompts that mean nearly the same and plans how
// their KV serves a new one. It fingerprints token sequences, keeps the index of
// fingerprints, aligns a target with its references token by token, and decides
// which tokens are recomputed. It knows nothing of llama.cpp, of KV layouts or
// of HTTP.
package matcher
