package matcher

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
)

// scopeKeys makes the key names of one scope. It is for one goroutine.
type scopeKeys struct {
	prefix string
	mac    hash.Hash
}

// keys derives the scope's own HMAC key, so that no name in Redis says anything
// about tenant, model or content, and no two scopes have a name in common.
func (x *Index) keys(sc Scope) *scopeKeys {
	m := hmac.New(sha256.New, x.secret)
	for _, s := range []string{sc.Tenant, sc.Model, sc.Store} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		m.Write(n[:])
		m.Write([]byte(s))
	}
	return &scopeKeys{x.prefix, hmac.New(sha256.New, m.Sum(nil))}
}

// name is prefix, kind and the first 128 bits of the HMAC of kind and data.
func (k *scopeKeys) name(kind byte, data []byte) string {
	k.mac.Reset()
	k.mac.Write([]byte{kind})
	k.mac.Write(data)
	var sum [sha256.Size]byte
	b := make([]byte, 0, len(k.prefix)+3+22)
	b = append(b, k.prefix...)
	b = append(b, ':', kind, ':')
	return string(base64.RawURLEncoding.AppendEncode(b, k.mac.Sum(sum[:0])[:16]))
}

func (k *scopeKeys) number(kind byte, n uint64) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	return k.name(kind, b[:])
}

func (k *scopeKeys) posting(key uint64) string { return k.number('p', key) }
func (k *scopeKeys) entry(id string) string    { return k.name('e', []byte(id)) }
func (k *scopeKeys) references() string        { return k.name('r', nil) }

// seal hides (or shows again) the keys kept with an entry: shingle hashes could
// be guessed from likely words. The pad is HMAC in counter mode and used for
// one id only.
func (k *scopeKeys) seal(id string, data []byte) []byte {
	out := make([]byte, len(data))
	var sum [sha256.Size]byte
	for i := 0; i < len(data); i += sha256.Size {
		k.mac.Reset()
		fmt.Fprintf(k.mac, "s%d:%s", i, id)
		pad := k.mac.Sum(sum[:0])
		for j := i; j < min(len(data), i+sha256.Size); j++ {
			out[j] = data[j] ^ pad[j-i]
		}
	}
	return out
}
