// Package launch runs a llama-server beside the sidecar: it takes the command
// line that a user would have typed, moves the server to a port of its own so
// that the sidecar can stand where the server was, gives it what sharing needs,
// and keeps it running. It knows nothing of requests or of KV.
package launch
