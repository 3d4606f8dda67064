package inject

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Lives of what is made here. A certificate is replaced when a third of its life
// is left. A new authority is made well before the old one ends, and both are
// trusted until then, so that no replica is ever caught with a certificate that
// the API server does not know.
const (
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 90 * 24 * time.Hour
	// clockSkew is how far the API server's clock may be behind.
	clockSkew = time.Hour
)

// Keys of the Secret. The names of the first two are those of kubernetes.io/tls.
const (
	secretCertificate  = corev1.TLSCertKey
	secretKey          = corev1.TLSPrivateKeyKey
	secretAuthority    = "ca.crt" // the one in use, then those still trusted
	secretAuthorityKey = "ca.key"
)

// keeper keeps a self-made serving certificate in a Secret, for all replicas, and
// its authority in the caBundle of the webhook configuration. It reads and writes
// these two objects by name and nothing else; whoever writes first wins, and the
// others take what was written.
type keeper struct {
	client        client.Client
	secret        types.NamespacedName
	configuration string // of the MutatingWebhookConfiguration
	host          string // of the Service, as the API server calls it
	now           func() time.Time
	metrics       *metrics
	log           zerolog.Logger

	current atomic.Pointer[tls.Certificate]
}

// run keeps the certificate until the context ends.
func (k *keeper) run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := k.keep(ctx); err != nil && ctx.Err() == nil {
			k.metrics.failures.Inc()
			k.log.Error().Err(err).Msg("the certificate could not be looked after; the last one stays")
		}
	}
}

// certificate serves the last good one.
func (k *keeper) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := k.current.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// keep makes sure that the Secret holds a certificate that is good for a while,
// serves it, and has the API server trust it. The caBundle is written before a
// certificate of a new authority is served.
func (k *keeper) keep(ctx context.Context) error {
	var secret corev1.Secret
	if err := k.client.Get(ctx, k.secret, &secret); err != nil {
		return fmt.Errorf("cannot read the Secret of the certificate: %w", err)
	}
	if k.renew(secret.Data) {
		data, err := k.issue(secret.Data)
		if err != nil {
			return err
		}
		secret.Data = data
		switch err := k.client.Update(ctx, &secret); {
		case apierrors.IsConflict(err): // another replica was first
			if err := k.client.Get(ctx, k.secret, &secret); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("cannot write the Secret of the certificate: %w", err)
		default:
			k.metrics.rotations.Inc()
			k.log.Info().Stringer("secret", k.secret).Msg("made a new certificate")
		}
	}
	pair, err := tls.X509KeyPair(secret.Data[secretCertificate], secret.Data[secretKey])
	if err != nil {
		return fmt.Errorf("the Secret %s holds no certificate: %w", k.secret, err)
	}
	if err := k.trust(ctx, secret.Data[secretAuthority]); err != nil {
		return err
	}
	k.current.Store(&pair)
	k.metrics.certificate.Set(float64(pair.Leaf.NotAfter.Unix()))
	return nil
}

// trust puts the authorities into every webhook of the configuration.
func (k *keeper) trust(ctx context.Context, authorities []byte) error {
	var c admissionregistrationv1.MutatingWebhookConfiguration
	if err := k.client.Get(ctx, types.NamespacedName{Name: k.configuration}, &c); err != nil {
		return fmt.Errorf("cannot read the webhook configuration: %w", err)
	}
	changed := false
	for i := range c.Webhooks {
		if w := &c.Webhooks[i].ClientConfig; !bytes.Equal(w.CABundle, authorities) {
			w.CABundle, changed = authorities, true
		}
	}
	if !changed {
		return nil
	}
	if err := k.client.Update(ctx, &c); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("cannot write the caBundle of the webhook configuration: %w", err)
	} else if err != nil {
		return k.trust(ctx, authorities)
	}
	k.log.Info().Str("configuration", k.configuration).Msg("wrote the caBundle")
	return nil
}

// renew reports whether the certificate must be made anew: it is missing, does
// not fit, or has used two thirds of its life.
func (k *keeper) renew(data map[string][]byte) bool {
	pair, err := tls.X509KeyPair(data[secretCertificate], data[secretKey])
	if err != nil {
		return true
	}
	authorities := parseAuthorities(data[secretAuthority])
	if len(authorities) == 0 || k.old(authorities[0]) {
		return true
	}
	roots := x509.NewCertPool()
	roots.AddCert(authorities[0])
	_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: k.host, Roots: roots, CurrentTime: k.now()})
	return err != nil || k.old(pair.Leaf)
}

func (k *keeper) old(c *x509.Certificate) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	return k.now().After(c.NotAfter.Add(-life / 3))
}

// issue makes a certificate, and an authority where the one there is cannot sign
// it for its whole life. An authority that is replaced stays trusted.
func (k *keeper) issue(old map[string][]byte) (map[string][]byte, error) {
	trusted := parseAuthorities(old[secretAuthority])
	authority, err := tls.X509KeyPair(old[secretAuthority], old[secretAuthorityKey])
	if err != nil || k.old(authority.Leaf) {
		if authority, err = k.sign(&x509.Certificate{
			Subject:               pkix.Name{CommonName: "semsharekv inject"},
			NotAfter:              k.now().Add(authorityLife),
			KeyUsage:              x509.KeyUsageCertSign,
			IsCA:                  true,
			BasicConstraintsValid: true,
		}, nil); err != nil {
			return nil, err
		}
		trusted = append([]*x509.Certificate{authority.Leaf}, trusted...)
	}
	pair, err := k.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: k.host},
		DNSNames:    []string{k.host},
		NotAfter:    k.now().Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &authority)
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{}
	for _, c := range trusted {
		if c.NotAfter.After(k.now()) {
			data[secretAuthority] = append(data[secretAuthority], encode("CERTIFICATE", c.Raw)...)
		}
	}
	data[secretCertificate] = encode("CERTIFICATE", pair.Leaf.Raw)
	if data[secretKey], err = encodeKey(pair); err != nil {
		return nil, err
	}
	data[secretAuthorityKey], err = encodeKey(authority)
	return data, err
}

// sign makes a key and a certificate for it, signed by the authority, or by
// itself where that is nil.
func (k *keeper) sign(template *x509.Certificate, authority *tls.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return tls.Certificate{}, err
	}
	template.NotBefore = k.now().Add(-clockSkew)
	parent, signer := template, any(key)
	if authority != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func parseAuthorities(text []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
}

func encodeKey(c tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	return encode("PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
