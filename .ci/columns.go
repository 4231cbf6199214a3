// Command columns fails on lines that are wider than 100 columns; a tab counts as four. It ignores
// generated code, rows of tables, struct tags, lines with a URL, code fences of Markdown,
// directives, preformatted lines of doc comments, and test data: in Go the lines of multi-line raw
// strings, and in tests the lines with a string of more than 45 bytes.
//
//	go run .ci/columns.go
package main

import (
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

const limit = 100

var (
	skipped = regexp.MustCompile(`[._]gen\.go$|/testdata/|^\.ci/api\.txt$`)
	tag     = regexp.MustCompile("`[a-z]+:\".*\"`")
	row     = regexp.MustCompile("^\t+([{\"`]|[a-zA-Z.]+: ).*,( //.*)?$")
)

func main() {
	files, err := exec.Command("git", "ls-files",
		"*.go", "*.md", ".ci/*", "openapi.yaml", ".env.example", "*/presets/*.yaml").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "git ls-files:", err)
		os.Exit(1)
	}
	wide := 0
	for _, name := range strings.Fields(string(files)) {
		if skipped.MatchString(name) {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		ignored := ignoredLines(name, source)
		for i, line := range strings.Split(string(source), "\n") {
			columns := len([]rune(strings.ReplaceAll(line, "\t", "    ")))
			if columns > limit && !ignored[i+1] && !exempt(name, line) {
				fmt.Printf("%s:%d: %d columns, expected at most %d\n", name, i+1, columns, limit)
				wide++
			}
		}
	}
	if wide > 0 {
		os.Exit(1)
	}
}

func exempt(name, line string) bool {
	return strings.Contains(line, "://") || strings.HasPrefix(line, "|") ||
		strings.HasPrefix(line, "//\t") ||
		strings.HasPrefix(line, "//go:") || tag.MatchString(line) ||
		strings.HasSuffix(name, "_test.go") && row.MatchString(line)
}

// ignoredLines returns the numbers of the lines of multi-line raw strings, code fences and test
// data.
func ignoredLines(name string, source []byte) map[int]bool {
	ignored := map[int]bool{}
	if strings.HasSuffix(name, ".md") {
		fenced := false
		for i, line := range strings.Split(string(source), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
			}
			ignored[i+1] = fenced
		}
		return ignored
	}
	if !strings.HasSuffix(name, ".go") {
		return ignored
	}
	file := token.NewFileSet().AddFile(name, -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, 0)
	for {
		pos, kind, literal := s.Scan()
		if kind == token.EOF {
			return ignored
		}
		if kind != token.STRING {
			continue
		}
		first := file.Line(pos)
		if len(literal) > 45 && strings.HasSuffix(name, "_test.go") {
			ignored[first] = true
		}
		if strings.Contains(literal, "\n") {
			for i := range strings.Count(literal, "\n") + 1 {
				ignored[first+i] = true
			}
		}
	}
}
