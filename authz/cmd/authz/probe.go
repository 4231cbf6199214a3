package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/client"
)

type probeCommand struct {
	Document string `required:"" help:"OpenAPI document that the server is held to."`
	URL      string `required:"" name:"url" help:"Where the document's paths begin on the server: https://api.example/v1. Nothing of a probe is sent anywhere else."`

	TokenURL     string `help:"Token endpoint of the issuer, for a client that may have the API's scopes. Without it only what needs no token is tried."`
	ClientID     string `env:"OASGATE_CLIENT_ID" help:"The client."`
	ClientSecret string `env:"OASGATE_CLIENT_SECRET" help:"Its secret. Better by the environment: arguments end up in histories and process lists."`
	Audience     string `env:"OASGATE_AUDIENCE" help:"Identifier of the API, for issuers that want one, and for forgeries."`
	Issuer       string `env:"OASGATE_ISSUER" help:"Issuer that the server trusts: forgeries claim to be of it, and its public keys are fetched to be misused."`

	Writes      bool `help:"Have operations done that may write: those that are not GET or HEAD. Without it these are tried only in ways that must be refused."`
	OnlyRFC6750 bool `name:"only-rfc6750" help:"Hold answers to RFC 6750 alone, for servers that this library does not guard: no problem documents are expected, nor Cache-Control, realm and scope."`
}

// probeReport is what probe says to programs.
type probeReport struct {
	URL     string         `json:"url"`
	Passed  int            `json:"passed"`
	Failed  int            `json:"failed"`
	Skipped int            `json:"skipped"`
	Cases   []probedResult `json:"cases"`
}

type probedResult struct {
	Name    string   `json:"name"`
	ID      string   `json:"operationId"`
	Method  string   `json:"method"`
	Path    string   `json:"path"`
	Outcome string   `json:"outcome"` // passed, failed, skipped
	Status  int      `json:"status,omitempty"`
	Faults  []string `json:"faults,omitempty"`
	Skipped string   `json:"skipped,omitempty"` // why
}

func (c *probeCommand) Run(ctx context.Context, t *tool) error {
	doc, err := t.load(ctx, c.Document, everything, false)
	if err != nil {
		return err
	}
	if _, err := authz.Compile(doc); err != nil {
		return fmt.Errorf("%s has %s, so that it is not clear what the server is to be held to: see authz lint %s",
			c.Document, count(len(faultsOf(err)), "fault"), c.Document)
	}
	target := authztest.Target{Document: doc, URL: strings.TrimSuffix(c.URL, "/"), OnlyRFC6750: c.OnlyRFC6750, Now: t.now, Skip: c.skip}
	if target.Tokens, err = c.tokens(ctx, t); err != nil {
		return err
	}
	if err := c.reach(ctx); err != nil {
		return err
	}
	results, err := authztest.Check(ctx, target)
	if err != nil {
		return err
	}
	report := c.report(results)
	if report.Failed > 0 && !slices.ContainsFunc(report.Cases, func(c probedResult) bool { return c.Status != 0 && c.Status != http.StatusNotFound }) {
		return fmt.Errorf("every answer is 404: is %s where the paths of %s begin?", c.URL, c.Document)
	}
	err = t.tell(report, func(p page) { p.writeProbe(report) })
	if err == nil && report.Failed > 0 {
		return errFound
	}
	return err
}

// reach finds out whether there is anybody at all, before every case waits in vain.
func (c *probeCommand) reach(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, c.URL, nil)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	if _, _, err := fetch(patient(), r); err != nil {
		return fmt.Errorf("the server cannot be reached: %w", err)
	}
	return nil
}

// patient returns a client that waits as long as the kit does, and goes where it is sent and nowhere else.
func patient() *http.Client {
	return &http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// skip leaves out what has the server do more than read.
func (c *probeCommand) skip(test authztest.Case) string {
	reads := func(o authz.Operation) bool { return o.Method == http.MethodGet || o.Method == http.MethodHead }
	if !c.Writes && slices.ContainsFunc(test.Runs(), func(o authz.Operation) bool { return !reads(o) }) {
		return "would have an operation done that may write (--writes)"
	}
	return ""
}

// tokens are those that the given client can get.
func (c *probeCommand) tokens(ctx context.Context, t *tool) (tokens authztest.Tokens, err error) {
	tokens = authztest.Tokens{Issuer: c.Issuer, Audience: c.Audience}
	if c.Issuer != "" {
		if tokens.KeySet, err = keySet(ctx, patient(), c.Issuer); err != nil {
			return tokens, fmt.Errorf("--issuer: its keys could not be had: %w", err)
		}
	}
	if c.TokenURL == "" && c.ClientID == "" && c.ClientSecret == "" {
		return tokens, nil
	}
	if c.TokenURL == "" || c.ClientID == "" || c.ClientSecret == "" {
		return tokens, errors.New("--token-url, --client-id and --client-secret (OASGATE_CLIENT_SECRET) are needed together, or none of them")
	}
	caller := &oauthClient{
		config: client.Config{TokenURL: c.TokenURL, ClientID: c.ClientID, ClientSecret: c.ClientSecret, Audience: c.Audience, HTTPClient: patient()},
		asked:  map[string]*issued{},
	}
	if _, err := caller.sufficient(ctx, nil); err != nil {
		return tokens, fmt.Errorf("no token: %w", err)
	}
	tokens.Genuine, tokens.Sufficient = caller.exactly, caller.sufficient
	return tokens, nil
}

func (c *probeCommand) report(results authztest.Report) probeReport {
	report := probeReport{URL: c.URL, Cases: []probedResult{}}
	for _, r := range results.Results {
		probed := probedResult{
			Name: r.Case.Name, ID: r.Case.Operation.ID, Method: r.Case.Operation.Method, Path: r.Case.Operation.Path,
			Outcome: "passed", Status: r.Status, Faults: r.Faults,
		}
		switch {
		case r.Skipped != "":
			probed.Outcome, probed.Skipped = "skipped", lacking(r.Skipped)
			report.Skipped++
		case len(r.Faults) > 0:
			probed.Outcome = "failed"
			report.Failed++
		default:
			report.Passed++
		}
		report.Cases = append(report.Cases, probed)
	}
	return report
}

// lacking says what a skipped case would need, by what can be given to this command rather than to the kit.
func lacking(why string) string {
	if strings.Contains(why, errNotGiven.Error()) {
		return "needs a token that the issuer does not give this client: with fewer scopes, or with one that does not exist"
	}
	for _, part := range []struct{ kit, here string }{
		{"Tokens.Sign", "needs the issuer's signing key: run authztest where there is one"},
		{"Target.Outage", "needs an outage of the issuer: run authztest, which can make one"},
		{"Tokens.Genuine", "needs a client (--token-url, --client-id, --client-secret)"},
		{"Tokens.KeySet", "needs the issuer's keys (--issuer)"},
	} {
		if strings.HasPrefix(why, "needs ") && strings.Contains(why, part.kit) {
			return part.here
		}
	}
	return why
}

func (p page) writeProbe(report probeReport) {
	rows := [][]cell{{{"METHOD", bold}, {"PATH", bold}, {"OPERATION", bold}, {"PASSED", bold}, {"FAILED", bold}, {"SKIPPED", bold}}}
	type failure struct{ id, fault string }
	failures := map[failure][]string{} // the cases in which it was found
	var order []failure
	reasons := map[string]int{}
	for cases := range chunks(report.Cases) {
		number := map[string]int{}
		for _, c := range cases {
			number[c.Outcome]++
			for _, fault := range c.Faults {
				f := failure{c.ID, fault}
				if failures[f] == nil {
					order = append(order, f)
				}
				failures[f] = append(failures[f], c.Name)
			}
			if c.Skipped != "" {
				reasons[c.Skipped]++
			}
		}
		failed := cell{text: fmt.Sprint(number["failed"])}
		if number["failed"] > 0 {
			failed.colour = red
		}
		rows = append(rows, append(plain(cases[0].Method, cases[0].Path, cases[0].ID, fmt.Sprint(number["passed"])), failed, cell{text: fmt.Sprint(number["skipped"])}))
	}
	p.table("", rows)
	if order != nil {
		p.line("")
		p.line("%s", p.paint(red, "failed"))
		var told [][]cell
		for _, f := range order {
			name := failures[f][0]
			if more := len(failures[f]) - 1; more > 0 {
				name += fmt.Sprintf(" and %d more", more)
			}
			told = append(told, []cell{{name, red}, {text: f.fault}})
		}
		p.table("  ", told)
	}
	if len(reasons) > 0 {
		p.line("")
		p.line("%s", p.paint(dim, "skipped"))
		var why [][]cell
		for reason, n := range reasons {
			why = append(why, plain(fmt.Sprint(n), reason))
		}
		slices.SortFunc(why, func(a, b []cell) int { return cmp.Compare(a[1].text, b[1].text) })
		p.table("  ", why)
	}
	p.line("")
	p.line("%s: %d passed, %d failed, %d skipped", count(len(report.Cases), "case"), report.Passed, report.Failed, report.Skipped)
}

// chunks yields the cases operation by operation.
func chunks(all []probedResult) func(yield func([]probedResult) bool) {
	return func(yield func([]probedResult) bool) {
		for len(all) > 0 {
			n := slices.IndexFunc(all, func(c probedResult) bool { return c.ID != all[0].ID })
			if n < 0 {
				n = len(all)
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}
