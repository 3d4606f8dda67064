// Package inject puts the sidecar into Kubernetes pods: a mutating admission
// webhook that turns a pod with a llama-server container into one in which the
// sidecar stands in front of that server. It decides from the pod alone, asks
// the cluster nothing about it, and says in an annotation what it did, or why it
// did nothing. It knows nothing of prompts or KV caches. It refuses no pod: what
// it cannot change, or a fault of its own, leaves the pod as it was. But what it
// adds counts: where it exceeds a LimitRange or a quota the API server refuses the
// pod.
package inject
