package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/joho/godotenv"
)

// environment is where a setting comes from that no flag gives: the first layer in which it is not
// empty.
type environment struct {
	prefix string // of the program's keys
	layers []map[string]string
}

// readEnvironment returns the layers, the process's environment (as os.Environ gives it) before the
// file. It is normal that the file does not exist.
func readEnvironment(prefix string, environ []string, dotenv string) (environment, error) {
	process := map[string]string{}
	for _, pair := range environ {
		key, value, _ := strings.Cut(pair, "=")
		process[key] = value
	}
	file, err := readDotenv(dotenv)
	if err != nil {
		return environment{}, err
	}
	env := environment{prefix, []map[string]string{process, file}}
	return env, env.resolveAliases()
}

// key is a key as operators know it.
func (e environment) key(name string) string { return e.prefix + name }

// lookup returns the value of a key of the program, or "". Empty is the same as absent: `KEY=` is how
// .env files and container descriptions leave a value out.
func (e environment) lookup(name string) string {
	for _, layer := range e.layers {
		if value := strings.TrimSpace(layer[e.key(name)]); value != "" {
			return value
		}
	}
	return ""
}

// resolveAliases gives the keys that the Auth0 quickstarts use the program's names, layer by layer, so
// that an alias in the environment beats the program's key in .env. Two that contradict each other in
// one layer are a fault: to guess which issuer was meant is to guess whom to trust.
func (e environment) resolveAliases() error {
	var found []error
	for _, layer := range e.layers {
		for _, a := range []struct {
			alias, key string
			value      func(string) string
		}{
			{"AUTH0_DOMAIN", e.key("ISSUER"), issuerOfDomain},
			{"AUTH0_AUDIENCE", e.key("AUDIENCE"), strings.TrimSpace},
		} {
			alias, own := a.value(layer[a.alias]), strings.TrimSpace(layer[a.key])
			switch {
			case alias == "" || alias == own:
			case own == "":
				layer[a.key] = alias
			default:
				found = append(found, fmt.Errorf("%s and %s contradict each other, %q and %q: expected one of them alone",
					a.alias, a.key, alias, own))
			}
		}
	}
	return errors.Join(found...)
}

// issuerOfDomain returns the issuer of an Auth0 tenant, whose iss is always https, in lower case, and ends in a slash.
func issuerOfDomain(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(domain), "/"))
	if domain == "" || strings.HasPrefix(domain, "http://") {
		return domain // for the check of the issuer to refuse
	}
	return "https://" + strings.TrimPrefix(domain, "https://") + "/"
}

// readDotenv never repeats what the parser complains of: the parser quotes the rest of the file, secrets included.
func readDotenv(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s could not be read: %w; expected a file of KEY=value lines, or none", path, err)
	}
	values, err := godotenv.UnmarshalBytes(text)
	if _, nameless := values[""]; err == nil && !nameless {
		return values, nil
	}
	// The fault is in the statement after the longest beginning that is well-formed.
	lines := strings.SplitAfter(string(text), "\n")
	well := 0
	for n := range len(lines) {
		values, err := godotenv.Unmarshal(strings.Join(lines[:n], ""))
		if _, nameless := values[""]; err == nil && !nameless {
			well = n
		}
	}
	return nil, fmt.Errorf("%s is malformed at line %d: expected KEY=value, KEY=\"value\" or # comment", path, well+1)
}
