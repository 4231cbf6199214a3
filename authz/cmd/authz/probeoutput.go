package main

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/oasgate/oasgate/authz/authztest"
)

// probeReport is the result of probe, for programs.
type probeReport struct {
	URL     string         `json:"url"`
	Passed  int            `json:"passed"`
	Failed  int            `json:"failed"`
	Skipped int            `json:"skipped"`
	Cases   []probedResult `json:"cases"`
	Notes   []string       `json:"notes"` // by what answers were judged
}

type probedResult struct {
	Name    string   `json:"name"`
	ID      string   `json:"operationId"`
	Method  string   `json:"method"`
	Path    string   `json:"path"`
	Outcome string   `json:"outcome"` // passed, failed, skipped
	Status  int      `json:"status,omitempty"`
	Faults  []string `json:"faults,omitempty"`
	Refused bool     `json:"handshakeRefused,omitempty"`
	Detail  string   `json:"detail,omitempty"`  // of the answer's problem document
	Curl    string   `json:"curl,omitempty"`    // repeats the request
	Skipped string   `json:"skipped,omitempty"` // why
}

// answer writes the report. Its error is errFound if a case failed.
func (c *probeCommand) answer(t *tool, report probeReport) (err error) {
	switch {
	case t.json || c.Format == "json":
		err = t.out.json(report)
	case c.Format == "junit":
		err = t.out.junit(report)
	default:
		t.out.writeProbe(report)
	}
	if err == nil && report.Failed > 0 {
		return errFound
	}
	return err
}

func (c *probeCommand) report(results authztest.Report) probeReport {
	report := probeReport{URL: c.URL, Cases: []probedResult{}, Notes: c.notes()}
	refused := 0
	for _, r := range results.Results {
		if !c.chosen(r.Case) {
			continue
		}
		probed := probedResult{
			Detail: r.Detail, Curl: r.Curl, Refused: r.HandshakeRefused,
			Name: r.Case.Name, ID: r.Case.Operation.ID, Method: r.Case.Operation.Method,
			Path:    r.Case.Operation.Path,
			Outcome: "passed", Status: r.Status, Faults: r.Faults,
		}
		switch {
		case r.Skipped != "":
			probed.Outcome, probed.Skipped = "skipped", skipReason(r.Skipped)
			report.Skipped++
		case len(r.Faults) > 0:
			probed.Outcome = "failed"
			report.Failed++
		default:
			report.Passed++
		}
		if probed.Refused {
			refused++
		}
		report.Cases = append(report.Cases, probed)
	}
	if refused > 0 {
		report.Notes = append(report.Notes, "in "+count(refused, "case")+", the server ends the "+
			"TLS handshake without the certificate or with another: this passes for a refusal")
	}
	return report
}

// skipReason returns why a case was skipped, in terms of the flags of this command.
func skipReason(why string) string {
	if strings.Contains(why, errNotGiven.Error()) {
		return "needs a token that the issuer does not give this client: with fewer scopes, or " +
			"with one that does not exist"
	}
	for _, known := range []error{errNotBound, errNotRevoked} {
		if strings.Contains(why, known.Error()) {
			return known.Error()
		}
	}
	for _, part := range []struct{ kit, here string }{
		{"Tokens.Sign", "needs the issuer's signing key: run authztest where there is one"},
		{"Tokens.Revoke", "needs to revoke tokens at the issuer (--revoke)"},
		{"Target.Outage", "needs an outage of the issuer: run authztest, which can make one"},
		{"Target.Credentials",
			"needs a credential of another scheme (--key, --user, --credentials, --cert)"},
		{"Tokens.CertificateBound",
			"needs a token bound to a certificate (--cert, --cert-key)"},
		{"Tokens.Bound", "needs a server that takes bound tokens (--dpop)"},
		{"Tokens.Other", "needs a second client (--other-client-id, --other-client-secret)"},
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
	rows := [][]cell{
		{
			{"METHOD", bold},
			{"PATH", bold},
			{"OPERATION", bold},
			{"PASSED", bold},
			{"FAILED", bold},
			{"SKIPPED", bold},
		},
	}
	for cases := range chunks(report.Cases, func(c probedResult) string { return c.ID }) {
		number := map[string]int{}
		for _, c := range cases {
			number[c.Outcome]++
		}
		failed := cell{text: fmt.Sprint(number["failed"])}
		if number["failed"] > 0 {
			failed.colour = red
		}
		row := plain(cases[0].Method, cases[0].Path, cases[0].ID, fmt.Sprint(number["passed"]))
		rows = append(rows, append(row, failed, cell{text: fmt.Sprint(number["skipped"])}))
	}
	p.table("", rows)
	p.failures(report.Cases)
	p.skipped(report.Cases)
	p.line("")
	p.line("%s: %d passed, %d failed, %d skipped", count(len(report.Cases), "case"),
		report.Passed, report.Failed, report.Skipped)
	for _, note := range report.Notes {
		p.line("%s", p.paint(dim, note))
	}
}

// failures writes each fault of an operation once, with the first case in which it was found.
func (p page) failures(cases []probedResult) {
	type failure struct{ id, fault string }
	found := map[failure][]probedResult{}
	var order []failure
	for _, c := range cases {
		for _, fault := range c.Faults {
			f := failure{c.ID, fault}
			if found[f] == nil {
				order = append(order, f)
			}
			found[f] = append(found[f], c)
		}
	}
	if order == nil {
		return
	}
	p.line("")
	p.line("%s", p.paint(red, "failed"))
	var rows [][]cell
	for _, f := range order {
		first := found[f][0]
		name := first.Name
		if more := len(found[f]) - 1; more > 0 {
			name += fmt.Sprintf(" and %d more", more)
		}
		rows = append(rows, []cell{{name, red}, {text: f.fault}})
		if first.Detail != "" {
			rows = append(rows, []cell{{text: "  detail: " + first.Detail}})
		}
		if first.Curl != "" {
			rows = append(rows, []cell{{"  " + first.Curl, dim}})
		}
	}
	p.table("  ", rows)
}

// skipped writes the reasons for which cases were skipped, and their numbers.
func (p page) skipped(cases []probedResult) {
	reasons := map[string]int{}
	for _, c := range cases {
		if c.Skipped != "" {
			reasons[c.Skipped]++
		}
	}
	if len(reasons) == 0 {
		return
	}
	p.line("")
	p.line("%s", p.paint(dim, "skipped"))
	var rows [][]cell
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		rows = append(rows, plain(fmt.Sprint(reasons[reason]), reason))
	}
	p.table("  ", rows)
}

// notes describes how responses were judged. From outside, it is not visible whether a handler
// ran.
func (c *probeCommand) notes() []string {
	notes := []string{"requests that must be accepted are judged by the status of the response, " +
		"and " +
		"by whether the document describes it"}
	if c.IgnoreResponses {
		notes[0] = "requests that must be accepted are judged by their status alone " +
			"(--ignore-responses)"
	}
	if c.OnlyRFC6750 {
		notes = append(notes, "refusals are judged by status and challenge alone (--only-rfc6750)")
	}
	return notes
}

// junit writes the cases as JUnit XML, with a suite for each operation.
func (p page) junit(report probeReport) error {
	type message struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testCase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Failure *message `xml:"failure"`
		Skipped *message `xml:"skipped"`
	}
	type suite struct {
		XMLName xml.Name   `xml:"testsuite"`
		Name    string     `xml:"name,attr"`
		Tests   int        `xml:"tests,attr"`
		Failed  int        `xml:"failures,attr"`
		Skipped int        `xml:"skipped,attr"`
		Cases   []testCase `xml:"testcase"`
		Notes   string     `xml:"system-out"`
	}
	all := suite{
		Name:    "authz probe",
		Tests:   len(report.Cases),
		Failed:  report.Failed,
		Skipped: report.Skipped,
		Notes:   strings.Join(report.Notes, "\n"),
	}
	for _, c := range report.Cases {
		test := testCase{Class: c.Method + " " + c.Path, Name: c.Name}
		if c.Faults != nil {
			var text []string
			for _, line := range []string{strings.Join(c.Faults, "\n"), c.Detail, c.Curl} {
				if line != "" {
					text = append(text, line)
				}
			}
			test.Failure = &message{c.Faults[0], strings.Join(text, "\n")}
		}
		if c.Skipped != "" {
			test.Skipped = &message{Message: c.Skipped}
		}
		all.Cases = append(all.Cases, test)
	}
	text, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(p.w, "%s%s\n", xml.Header, text)
	}
	return err
}

// nothingFound reports whether there were responses, and all were 404.
func (r probeReport) nothingFound() (found bool) {
	for _, c := range r.Cases {
		switch c.Status {
		case 0:
		case http.StatusNotFound:
			found = true
		default:
			return false
		}
	}
	return found
}
