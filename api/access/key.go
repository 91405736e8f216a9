package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	keyPrefix = "hc_" // by which people and scanners of secrets know a key
	keyBytes  = 32    // of a new key that are random

	// minKey is the length of a key at least: 128 random bits have 22 letters in base64.
	minKey = 22
	maxKey = 512
)

// NewKey makes a key of 256 random bits: keyPrefix and 43 letters, digits, - and _.
func NewKey() string {
	var b [keyBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return keyPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// CheckKey says why a text cannot be a key. Whether it is random it cannot know. The text is not in the error.
func CheckKey(key string) error {
	if len(key) < minKey || len(key) > maxKey {
		return fmt.Errorf("a key has %d to %d characters, of which at least 128 bits are random: make one with \"hailo-clip keys new NAME\"", minKey, maxKey)
	}
	const fit = "-_.~+/=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" // RFC 6750, 2.1
	if strings.Trim(key, fit) != "" {
		return errors.New("a key has letters, digits and - _ . ~ + / = only")
	}
	return nil
}

// Hash is the SHA-256 of a key, which is what the configuration has of it; zero: none. Keys are random, so nobody finds one by
// trying, however quickly SHA-256 is computed; a slow hash, as passwords need it, would only let strangers keep the processor busy
// with wrong keys. It is shown as *** all the same, because whoever has hashed a password has a secret here.
type Hash [sha256.Size]byte

// Sum is the hash of a key.
func Sum(key []byte) Hash { return sha256.Sum256(key) }

const (
	hashPrefix = "sha256:"
	hidden     = "***"
)

// Text is the hash as the configuration has it.
func (h Hash) Text() string { return hashPrefix + hex.EncodeToString(h[:]) }

func (h Hash) String() string {
	if h == (Hash{}) {
		return ""
	}
	return hidden
}

// GoString hides it from %#v.
func (h Hash) GoString() string { return h.String() }

// MarshalText hides it.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits, with or without "sha256:" before them. The error does not have the text, which may be
// a key.
func (h *Hash) UnmarshalText(text []byte) error {
	digits := strings.TrimPrefix(strings.ToLower(string(text)), hashPrefix)
	b, err := hex.DecodeString(digits)
	switch {
	case string(text) == hidden:
		return fmt.Errorf("is %s, which stands for what is not shown", hidden)
	case err != nil || len(b) != len(h):
		return errors.New(`is out of bounds: "sha256:" and 64 hexadecimal digits, as "hailo-clip keys hash" makes them of a key`)
	}
	copy(h[:], b)
	return nil
}
