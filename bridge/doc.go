// Package bridge is the way into the backend's KV cache: the codec of its state
// files, the kernels that compose them, the store of reference states, the model
// file, and the HTTP client of llama-server's own endpoints. It knows nothing of
// clients' requests nor of how references are found.
package bridge
