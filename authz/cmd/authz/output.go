package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// notice is a finding for other programs: an annotation of a pull request, or a result of code
// scanning.
type notice struct {
	id      string
	rule    string
	level   string // error, warning, note
	file    string
	line    int
	column  int
	message string
}

// findingID returns an ID that depends on the given parts alone.
func findingID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// annotations writes notices as workflow commands of GitHub Actions.
func (p page) annotations(notices []notice) {
	value := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	for _, n := range notices {
		level := n.level
		if level == "note" {
			level = "notice"
		}
		var at string
		if n.file != "" {
			at = "file=" + property.Replace(n.file) + ","
			if n.line > 0 {
				at += fmt.Sprintf("line=%d,", n.line)
			}
		}
		p.line(
			"::%s %stitle=%s::%s",
			level,
			at,
			property.Replace("authz "+n.rule),
			value.Replace(printable(n.message)),
		)
	}
}

// sarifRule describes a rule to code scanning.
type sarifRule struct {
	ID    string    `json:"id"`
	Short sarifText `json:"shortDescription"`
	Help  sarifText `json:"help"`
}

type sarifText struct {
	Text string `json:"text"`
}

// sarif writes notices as SARIF 2.1.0. A result without a place concerns the whole document.
func (p page) sarif(document string, rules []sarifRule, notices []notice) error {
	type object = map[string]any
	results := []object{}
	for _, n := range notices {
		region := object{"startLine": max(n.line, 1)}
		if n.column > 0 {
			region["startColumn"] = n.column
		}
		results = append(results, object{
			"ruleId": n.rule, "level": n.level, "message": object{"text": n.message},
			"partialFingerprints": object{"authz/v1": n.id},
			"locations": []object{{"physicalLocation": object{
				"artifactLocation": object{"uri": cmp.Or(n.file, document)}, "region": region,
			}}},
		})
	}
	return p.json(object{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json",
		"version": "2.1.0",
		"runs": []object{{
			"tool": object{
				"driver": object{
					"name":           "authz",
					"informationUri": "https://github.com/oasgate/oasgate",
					"rules":          rules,
				},
			},
			"results": results,
		}},
	})
}

// markdown writes a table in GitHub's Markdown.
func (p page) markdown(rows [][]string) {
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;", "@", "@\u200b")
	for i, row := range rows {
		row = slices.Clone(row)
		for j := range row {
			row[j] = cell.Replace(printable(row[j]))
		}
		p.line("| %s |", strings.Join(row, " | "))
		if i == 0 {
			p.line("|%s", strings.Repeat("---|", len(row)))
		}
	}
}

// chunks yields the longest parts of a list whose items have the same key.
func chunks[T any](all []T, key func(T) string) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(all) > 0 {
			first := key(all[0])
			n := slices.IndexFunc(all, func(item T) bool { return key(item) != first })
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
