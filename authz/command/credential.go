package command

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

type credentialCommand struct {
	ID      string   `required:"" help:"ID of the client; for HTTP Basic, the user name."`
	Subject string   `help:"Subject of the principal. Default: the ID."`
	Scope   []string `sep:"none" help:"Scope to grant; can be repeated."`
}

// credential generates a secret. It prints the entry for the file to stdout, which can be appended
// to the file, and the secret to stderr.
func (p *program) credential(c *credentialCommand) error {
	secret := rand.Text() // 128 bits or more
	if err := writeCredential(p.stdout, c, secret); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.stderr, "%s\n", secret)
	return err
}

func writeCredential(w io.Writer, c *credentialCommand, secret string) error {
	subject := c.Subject
	if subject == "" {
		subject = c.ID
	}
	var scopes []string
	for _, scope := range c.Scope {
		scopes = append(scopes, strconv.Quote(scope))
	}
	_, err := fmt.Fprintf(
		w,
		"  - id: %s\n    subject: %s\n    scopes: [%s]\n    sha256: %x\n",
		strconv.Quote(
			c.ID,
		),
		strconv.Quote(subject),
		strings.Join(scopes, ", "),
		sha256.Sum256([]byte(secret)),
	)
	return err
}

// secret reads an entry of the file of credentials.
func (r *reader) secret(entry setting) (secret authz.Secret) {
	principal := token.PrincipalConfig{Issuer: credentialIssuer}
	given := map[string]bool{}
	for _, s := range entry.members("") {
		given[s.name] = true
		switch s.name {
		case "id":
			secret.ID = value(s, verbatim)
		case "subject":
			principal.Subject = value(s, verbatim)
		case "scopes":
			principal.Scopes = list(s, verbatim)
		case "sha256":
			secret.SHA256 = value(s, r.sha256)
		default:
			s.unknown("one of id, subject, scopes, sha256")
		}
	}
	for _, name := range []string{"id", "sha256"} {
		if !given[name] {
			r.missing(entry.at(name), "the value that the command credential prints")
		}
	}
	if principal.ClientID = secret.ID; principal.Subject == "" {
		principal.Subject = secret.ID
	}
	var err error
	if secret.Principal, err = token.NewPrincipal(principal); err != nil {
		r.all = append(r.all, errors.New(entry.at(err.Error())))
	}
	return secret
}

// sha256 parses a hash. Its error does not contain the value, which could be the secret itself.
func (r *reader) sha256(key, given string) (hash [32]byte) {
	if raw, err := hex.DecodeString(given); err == nil && len(raw) == len(hash) {
		return [32]byte(raw)
	}
	r.all = append(
		r.all,
		fmt.Errorf("%s is not 64 hexadecimal digits: expected the SHA-256 of the secret", key),
	)
	return hash
}
