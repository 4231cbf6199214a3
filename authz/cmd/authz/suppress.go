package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// ignoreExtension lists, on an operation, the rules whose findings have been reviewed.
const ignoreExtension = "x-authz-lint-ignore"

// suppressInDocument removes the findings that operations suppress. Faults stay, because they stop
// the server.
func suppressInDocument(operations []operation, findings []finding) []finding {
	ignored := map[string][]string{}
	for _, o := range operations {
		ignored[o.String()] = o.ignored()
	}
	return slices.DeleteFunc(findings, func(f finding) bool {
		method, rest, _ := strings.Cut(f.Where, " ")
		path, _, _ := strings.Cut(rest, " ")
		return f.Level != faultLevel && slices.Contains(ignored[method+" "+path], f.Rule)
	})
}

// ignored returns the rules that an operation suppresses.
func (o operation) ignored() (names []string) {
	list, _ := o.spec.Extensions[ignoreExtension].([]any)
	for _, name := range list {
		names = append(names, fmt.Sprint(name))
	}
	return names
}

// suppression is an entry of the file of --ignore.
type suppression struct {
	Rule   string `yaml:"rule"`
	Where  string `yaml:"where"` // GET /messages; "": everywhere
	ID     string `yaml:"id"`    // of one finding
	Reason string `yaml:"reason"`
}

type suppressions []suppression

func readSuppressions(name string) (all suppressions, err error) {
	if name == "" {
		return nil, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--ignore: %w", err)
	}
	defer file.Close()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--ignore: %s: %w", name, err)
	}
	for i, s := range all {
		r, known := ruleNamed(s.Rule)
		switch {
		case s.ID == "" && s.Rule == "":
			err = errors.New("expected a rule or an id")
		case s.Rule != "" && !known:
			err = fmt.Errorf("unknown rule %s: see authz lint --rules", s.Rule)
		case r.level == faultLevel:
			err = fmt.Errorf("%s is a fault: the document would not be served", s.Rule)
		case strings.TrimSpace(s.Reason) == "":
			err = errors.New("expected a reason")
		}
		if err != nil {
			return nil, fmt.Errorf("--ignore: %s: entry %d: %w", name, i+1, err)
		}
	}
	return all, nil
}

// apply removes the suppressed findings, and returns the entries that suppress nothing.
func (all suppressions) apply(findings []finding) (left []finding, unused []string) {
	used := make([]bool, len(all))
	for _, f := range findings {
		i := slices.IndexFunc(all, func(s suppression) bool {
			return (s.ID == "" || s.ID == f.ID) && (s.Rule == "" || s.Rule == f.Rule) &&
				(s.Where == "" || f.Where == s.Where || strings.HasPrefix(f.Where, s.Where+" ") ||
					strings.HasPrefix(f.Where, s.Where+"."))
		})
		if i >= 0 && f.Level != faultLevel {
			used[i] = true
		} else {
			left = append(left, f)
		}
	}
	for i, s := range all {
		if !used[i] {
			unused = append(
				unused,
				strings.TrimSpace(strings.Join([]string{s.Rule, s.ID, s.Where}, " ")),
			)
		}
	}
	return left, unused
}
