// Package testca makes certificates for tests.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// CA signs certificates for 127.0.0.1 and localhost.
type CA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// Pool has its certificate.
	Pool *x509.CertPool
}

// New makes one.
func New(t testing.TB) *CA {
	t.Helper()
	a := &CA{t: t, Pool: x509.NewCertPool()}
	tmpl := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, key := a.sign(tmpl, 1_000_000, time.Hour)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.Pool.AddCert(a.cert)
	return a
}

// Issue returns a certificate and its key in PEM format. It began an hour ago, and is good
// for so long from now on. Its serial number tells it from others.
func (a *CA) Issue(serial int64, good time.Duration) (cert, key []byte) {
	a.t.Helper()
	der, k := a.sign(&x509.Certificate{
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, serial, good)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// sign completes the template and signs it: itself, if there is no CA yet.
func (a *CA) sign(tmpl *x509.Certificate, serial int64, good time.Duration) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl.SerialNumber, tmpl.Subject = big.NewInt(serial), pkix.Name{CommonName: "test"}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(good)
	issuer, with := a.cert, a.key
	if issuer == nil {
		issuer, with = tmpl, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, tmpl, issuer, &key.PublicKey, with); err != nil {
		a.t.Fatal(err)
	}
	return der, key
}
