package command

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// environment holds the settings that are not given as flags, in layers of which the first takes
// precedence.
type environment struct {
	prefix string // of the program's variables
	layers []map[string]string
}

// readEnvironment returns the process's environment, in the form of os.Environ, and the file
// dotenv, which need not exist.
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

// key returns the full name of a variable.
func (e environment) key(name string) string { return e.prefix + name }

// lookup returns the value of a variable of the program, or "". An empty variable counts as unset:
// `KEY=` is how .env files and container descriptions leave a value out.
func (e environment) lookup(name string) string {
	for _, layer := range e.layers {
		if value := strings.TrimSpace(layer[e.key(name)]); value != "" {
			return value
		}
	}
	return ""
}

// with returns an environment in which a variable of the program has the value.
func (e environment) with(name, value string) environment {
	e.layers = slices.Clone(e.layers)
	first := maps.Clone(e.layers[0])
	first[e.key(name)] = value
	e.layers[0] = first
	return e
}

// secret returns the value of a variable of the program, or the content of the file that the
// variable with _FILE at the end of its name names, or "".
func (e environment) secret(name string) (string, error) {
	value, path := e.lookup(name), e.lookup(name+"_FILE")
	switch {
	case path == "":
		return value, nil
	case value != "":
		return "", fmt.Errorf("%s and %[1]s_FILE are both set: expected one of them", e.key(name))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s_FILE is %q: expected a readable file: %w", e.key(name), path, err)
	}
	if value = strings.TrimSpace(string(text)); value == "" {
		return "", fmt.Errorf("%s_FILE is %q: expected a file that is not empty", e.key(name), path)
	}
	return value, nil
}

// kubernetes matches the ends of variables that Kubernetes sets for a service of the program's
// name.
var kubernetes = regexp.MustCompile(`^(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_.*)?)$`)

// unknown returns the variables with the program's prefix that are not known.
func (e environment) unknown(known []string) (unknown []string) {
	for _, layer := range e.layers {
		for name := range layer {
			rest, ok := strings.CutPrefix(name, e.prefix)
			if ok && !slices.Contains(known, name) && !kubernetes.MatchString(rest) {
				unknown = append(unknown, name)
			}
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

// process returns a variable of the process's environment that is not the program's own.
func (e environment) process(name string) string {
	if len(e.layers) == 0 {
		return ""
	}
	return e.layers[0][name]
}

// resolveAliases translates the variables of the Auth0 quickstarts to the program's own, layer by
// layer, so that an alias in the environment takes precedence over the program's variable in .env.
// Two different values in one layer are a fault: the wrong choice would trust the wrong issuer.
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
				found = append(found, fmt.Errorf(
					"%s and %s have different values, %q and %q: set only one of them",
					a.alias, a.key, alias, own))
			}
		}
	}
	return errors.Join(found...)
}

// issuerOfDomain returns the issuer of an Auth0 tenant. Its iss claim is always https, in lower
// case, and ends in a slash.
func issuerOfDomain(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(domain), "/"))
	if domain == "" || strings.HasPrefix(domain, "http://") {
		return domain // which the validation of the issuer refuses
	}
	return "https://" + strings.TrimPrefix(domain, "https://") + "/"
}

// readDotenv reads a .env file. It does not return the errors of the parser, because they quote the
// rest of the file, secrets included.
func readDotenv(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w: expected a file of KEY=value lines, or no file",
			path, err)
	}
	values, err := godotenv.UnmarshalBytes(text)
	if _, unnamed := values[""]; err == nil && !unnamed {
		return values, nil
	}
	// The fault is in the statement after the longest valid prefix.
	lines := strings.SplitAfter(string(text), "\n")
	valid := 0
	for n := range len(lines) {
		values, err := godotenv.Unmarshal(strings.Join(lines[:n], ""))
		if _, unnamed := values[""]; err == nil && !unnamed {
			valid = n
		}
	}
	return nil, fmt.Errorf(
		"%s is malformed at line %d: expected KEY=value, KEY=\"value\" or # comment", path, valid+1)
}
