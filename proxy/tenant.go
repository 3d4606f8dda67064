package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

// tenant returns a digest of who sent the request, or "" where that cannot be
// told for certain; nothing is then shared. It comes only from what the
// operator names, never from the body. The source is part of the digest, so
// that a header's value can never stand for a key's owner.
func tenant(t configs.Tenant, h *fasthttp.RequestHeader) string {
	switch t.Source {
	case "shared":
		return digest("shared", t.Name)
	case "header":
		if v, n := header(h, t.Name); n == 1 && v != "" {
			return digest("header", strings.ToLower(t.Name), v)
		}
	case "api_key":
		if key := apiKey(h); key != "" {
			return digest("api_key", key)
		}
	}
	return ""
}

// apiKey is the bearer token or the X-Api-Key of a request. Two that differ
// are no identity: the backend may go by the other one.
func apiKey(h *fasthttp.RequestHeader) string {
	auth, nAuth := header(h, "Authorization")
	key, nKey := header(h, "X-Api-Key")
	if nAuth > 1 || nKey > 1 {
		return ""
	}
	bearer := ""
	if scheme, token, ok := strings.Cut(auth, " "); ok && strings.EqualFold(scheme, "Bearer") {
		bearer = strings.TrimSpace(token)
	}
	switch {
	case nAuth == 0:
		return key
	case nKey == 0 || key == bearer:
		return bearer
	}
	return ""
}

// authorization is the client's credential as an Authorization header. llama-server goes
// by X-Api-Key only where there is none.
func authorization(h *fasthttp.RequestHeader) string {
	auth, _ := header(h, "Authorization")
	if key, _ := header(h, "X-Api-Key"); auth == "" && key != "" {
		return "Bearer " + key
	}
	return auth
}

// digest hashes parts so that no two lists of parts give the same input.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256([]byte(p))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}
