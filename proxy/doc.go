// Package proxy is the HTTP side of the sidecar: it takes every request a
// llama-server takes, lets the Sharer prepare those that make the backend
// prefill a prompt, and passes everything else through untouched.
//
// A request goes read -> route -> tenant -> prompt -> Sharer.prepare ->
// forward -> stream -> decision.finish. The package knows nothing of KV
// layouts; it keeps no prompt text and logs none.
package proxy
