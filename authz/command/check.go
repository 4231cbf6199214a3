package command

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// checkTimeout limits each check of serve --check that uses the network.
const checkTimeout = 10 * time.Second

// Prober is an optional interface of an [Opener], for serve --check.
type Prober interface {
	// Probe checks what the service depends on, such as a database, without changing it. It returns
	// the results by name: nil if it can be reached.
	Probe(ctx context.Context) map[string]error
}

// checkServe prints the effective configuration and whether serve would start and be ready with it.
func (p *program) checkServe(
	ctx context.Context, effective map[string]string, document *openapi3.T, policy *policy,
	settings settings,
) error {
	issuers := settings.server.Issuers
	for _, key := range slices.Sorted(maps.Keys(effective)) {
		fmt.Fprintf(p.stdout, "%s=%s\n", key, printable(effective[key]))
	}
	failed := 0
	report := func(name, ok string, err error) {
		if err == nil {
			fmt.Fprintf(p.stdout, "ok      %s%s\n", name, ok)
			return
		}
		failed++
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(p.stdout, "FAILED  %s: %s\n", name, printable(strings.TrimSpace(line)))
		}
	}
	operations, err := checkDocument(ctx, document, policy, issuers)
	report("document", fmt.Sprintf(": %d operations", operations), err)
	for _, issuer := range issuers {
		keys, err := checkKeys(ctx, issuer)
		report("keys of "+issuer.URL, fmt.Sprintf(": %d", keys), err)
	}
	if settings.tls != nil {
		current := func() *tls.Config { return settings.tls }
		report("certificate", "", checkCertificate(current)(ctx))
	}
	if prober, ok := p.Open.(Prober); ok {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		found := prober.Probe(ctx)
		for _, name := range slices.Sorted(maps.Keys(found)) {
			report(name, "", found[name])
		}
	}
	if failed > 0 {
		return fmt.Errorf("checks failed: %d", failed)
	}
	return nil
}

// checkDocument returns the number of operations, or all faults of the document, joined.
func checkDocument(
	ctx context.Context, document *openapi3.T, policy *policy, issuers []token.Issuer,
) (operations int, err error) {
	config := authz.Config{Document: document, Logger: slog.New(slog.DiscardHandler)}
	if len(issuers) > 0 {
		verifier, err := token.NewVerifier(ctx,
			token.Config{Issuers: issuers, Logger: config.Logger})
		if err != nil {
			return 0, err
		}
		config.Verifier = verifier
	}
	policy.gate(&config)
	gate, err := authz.New(config)
	if err != nil {
		return 0, err
	}
	return len(gate.Plan().Operations()), nil
}

// checkKeys fetches the keys of an issuer and returns their number.
func checkKeys(ctx context.Context, issuer token.Issuer) (keys int, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	verifier, err := token.NewVerifier(ctx, token.Config{
		Issuers: []token.Issuer{issuer}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	if err := verifier.Ready(ctx); err != nil {
		return 0, err
	}
	for _, found := range verifier.Stats().Issuers {
		keys += found.Keys
	}
	return keys, nil
}
