package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"hailoclip/api/access"
	"hailoclip/configs"
	"hailoclip/hailo/safefile"
)

type keysCmd struct {
	New  keysNewCmd  `cmd:"" help:"Make a key and print it, once, with the lines for the configuration. It is stored nowhere."`
	Hash keysHashCmd `cmd:"" help:"Read a key from standard input and print its hash for the configuration."`
}

func (c *keysCmd) Help() string {
	return `Examples:
  hailo-clip keys new door >door.key
  hailo-clip keys hash <door.key`
}

type keysNewCmd struct {
	Name string `arg:"" help:"Who will have the key: a letter or digit, then up to 63 of A-Z a-z 0-9 . _ -"`
}

func (c *keysNewCmd) Help() string {
	return `Prints the key alone on standard output, and the lines for the configuration on standard error.

Examples:
  hailo-clip keys new door
  hailo-clip keys new door >door.key      # then: hailo-clip classify --key-file door.key ...`
}

func (c *keysNewCmd) Run() error {
	if !access.ValidName(c.Name) {
		return usageError{fmt.Errorf("%q cannot be a name: 1 to 64 of A-Z a-z 0-9 . _ -, the first one a letter or digit", c.Name)}
	}
	key := access.NewKey()
	fmt.Fprintln(stdout, key)
	for line := range strings.SplitSeq(fmt.Sprintf(`This is the key; it cannot be shown again. Callers send it as "Authorization: Bearer KEY".
Add these lines to the configuration, then run "systemctl reload hailo-clip" or restart the service:

access:
  keys:
    - name: %s
      hash: %s`, c.Name, access.Sum([]byte(key)).Text()), "\n") {
		complain("%s", line) // a call each: complain indents lines after the first
	}
	return nil
}

type keysHashCmd struct{}

func (c *keysHashCmd) Help() string {
	return `The hash is SHA-256, which is safe for random keys only: a password could be guessed from it.

Examples:
  hailo-clip keys hash <door.key
  head -c 24 /dev/urandom | base64 | tee door.key | hailo-clip keys hash`
}

func (c *keysHashCmd) Run() error {
	key, err := readKey(os.Stdin)
	if err == nil {
		fmt.Fprintln(stdout, access.Sum([]byte(key)).Text())
	}
	return err
}

// readKey reads a key, with or without an end of line.
func readKey(from io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(from, 4<<10))
	if err != nil {
		return "", err
	}
	key := strings.TrimRight(string(b), "\r\n")
	if err := access.CheckKey(key); err != nil {
		return "", usageError{errors.New("this is no key: " + err.Error())}
	}
	return key, nil
}

// keyFlag says where the key for a service is found. It is not a flag's value, which other users of the machine can see.
type keyFlag struct {
	KeyFile string `name:"key-file" placeholder:"FILE" help:"File with the key for the service (access.keys). Default: the key in HAILO_CLIP_KEY."`
}

// key returns the key; "" if none is given.
func (f keyFlag) key() (key string, err error) {
	if f.KeyFile == "" {
		return os.Getenv(configs.KeyVariable), nil
	}
	file, err := safefile.OpenRegular(f.KeyFile)
	if err == nil {
		defer file.Close()
		key, err = readKey(file)
	}
	if err != nil {
		err = fmt.Errorf("--key-file: %w", err)
	}
	return key, err
}
