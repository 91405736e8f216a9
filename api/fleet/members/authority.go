package members

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"
)

const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem" // secret

	authorityLife   = 30 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
)

// Authority is the certificate authority of a broker, which certifies that broker and those of its cluster.
type Authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// Authority reads the folder's authority, or makes it, and the folder, when it has none. Half of one is an error: a new one
// would lock all nodes out.
func (d Dir) Authority() (*Authority, error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, err
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, noCertificate := os.Lstat(d.file(caFile))
	_, noKey := os.Lstat(d.file(caKeyFile))
	if errors.Is(noCertificate, fs.ErrNotExist) && errors.Is(noKey, fs.ErrNotExist) {
		if err := d.makeAuthority(); err != nil {
			return nil, err
		}
	}
	pair, err := tls.LoadX509KeyPair(d.file(caFile), d.file(caKeyFile))
	if err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w", d, err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of an authority", d.file(caFile))
	}
	return &Authority{pair.Leaf, signer}, nil
}

func (d Dir) makeAuthority() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	certificate := template("hailo-clip fleet", authorityLife)
	certificate.IsCA, certificate.BasicConstraintsValid, certificate.MaxPathLenZero = true, true, true
	certificate.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := WriteSecret(d.file(caKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return WriteNew(d.file(caFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func template(name string, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // does not fail
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		// A Pi without a clock may have made it in the past, and its nodes may be behind.
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(life),
	}
}

// Issue makes a certificate for names and addresses of this host, as a server and as a peer. Its key is in memory only.
func (a *Authority) Issue(hosts []string, life time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := template("hailo-clip broker", life)
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// Pool has the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Renewing returns certificates for a server on this host: a new one whenever the last has half of its life behind it, or the
// host has got another name or address, at which it looks once a minute.
func (a *Authority) Renewing(more []string) func() (*tls.Certificate, error) {
	return renewing(a, func() []string { return append(HostNames(), more...) }, certificateLife, time.Now)
}

func renewing(a *Authority, names func() []string, life time.Duration, now func() time.Time) func() (*tls.Certificate, error) {
	type made struct {
		*tls.Certificate
		hosts  []string
		looked time.Time
	}
	one := make(chan *made, 1) // holds the last one; taken while it is looked at
	one <- nil
	return func() (*tls.Certificate, error) {
		last := <-one
		defer func() { one <- last }()
		if last != nil && now().Sub(last.looked) < time.Minute && now().After(last.looked) {
			return last.Certificate, nil
		}
		hosts := names()
		if last != nil && slices.Equal(hosts, last.hosts) && now().Before(last.Leaf.NotAfter.Add(-life/2)) && now().After(last.Leaf.NotBefore) {
			last.looked = now()
			return last.Certificate, nil
		}
		c, err := a.Issue(hosts, life)
		if err != nil {
			return nil, err
		}
		last = &made{c, hosts, now()}
		return c, nil
	}
}

// HostNames are the names and addresses by which this host may be reached, in order.
func HostNames() []string {
	all := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		all = append(all, host, host+".local")
	}
	addresses, _ := net.InterfaceAddrs() // without them nodes use names
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			all = append(all, n.IP.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// WriteSecret makes a file that only this user can read, and that is not there yet.
func WriteSecret(path string, data []byte) error { return WriteNew(path, data, 0o600) }

// WriteNew makes a file that is not there yet; it is on disk, or removed, when it returns.
func WriteNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
