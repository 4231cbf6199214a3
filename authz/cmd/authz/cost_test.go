package main

import (
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestCost compares what commands cost with what it costs to read the same document with
// kin-openapi, as processes of their own, in one run.
func TestCost(t *testing.T) {
	if raceDetector || testing.Short() {
		t.Skip("measured without the race detector")
	}
	dir := t.TempDir()
	large := write(t, dir, "large.json", described(5000))
	data, err := os.ReadFile(large)
	if err != nil {
		t.Fatal(err)
	}
	yaml := filepath.Join(dir, "large.yaml") // a comment makes it YAML and not JSON
	if err := os.WriteFile(yaml, append([]byte("# Large\n"), data...), 0o644); err != nil {
		t.Fatal(err)
	}
	nested, _ := nestedResources(t, dir, false)
	nestedJSON := strings.TrimSuffix(nested, ".yaml") + ".json"
	if err := os.Rename(nested, nestedJSON); err != nil {
		t.Fatal(err)
	}
	documents := []string{large, yaml, nestedJSON}
	if published := os.Getenv("OASGATE_TEST_DOCUMENTS"); published != "" {
		// Of a small one, a few milliseconds decide: kin-openapi's validation takes as long as its
		// reading if there are defaults that do not match their schemas.
		found, _ := filepath.Glob(filepath.Join(published, "*.json"))
		documents = append(documents, slices.DeleteFunc(found, func(file string) bool {
			info, err := os.Stat(file)
			return err != nil || info.Size() < 1<<20
		})...)
	}
	for _, document := range documents {
		t.Run(filepath.Base(document), func(t *testing.T) { testCost(t, document) })
	}
}

// testCost compares the least of several tries, for a busy machine makes any of them slower. It
// ends as soon as all are within their limits.
func testCost(t *testing.T, document string) {
	const limit, tries = 1.5, 8
	// Only the loader reads YAML with places, which lint needs. Those of JSON it finds itself.
	ofLint := reading
	if strings.HasSuffix(document, ".yaml") {
		ofLint = readingPlaces
	}
	commands := []struct {
		args      []string
		base      string
		documents float64
	}{
		{[]string{"plan", document}, reading, 1},
		{[]string{"scopes", "--package=api", document}, reading, 1},
		{[]string{"diff", document, document}, reading, 2},
		{[]string{"lint", "--format=json", document}, ofLint, 1},
	}
	none := cost{math.MaxInt64, math.MaxInt64}
	readings := map[string]cost{reading: none, ofLint: none}
	costs := []cost{none, none, none, none}
	for try := 1; ; try++ {
		for how, least := range readings {
			readings[how] = least.least(measure(t, how, document))
		}
		exceeded := false
		for i, c := range commands {
			costs[i] = costs[i].least(measure(t, c.args...))
			time, memory := costs[i].over(readings[c.base], c.documents)
			exceeded = exceeded || max(time, memory) > limit
		}
		if exceeded && try < tries {
			continue
		}
		for i, c := range commands {
			time, memory := costs[i].over(readings[c.base], c.documents)
			t.Logf("%-6s %.2f times the processor time, %.2f times the memory of %s",
				c.args[0], time, memory, c.base)
			if max(time, memory) > limit {
				t.Errorf("%s costs %.2f times the processor time and %.2f times the memory of "+
					"reading, expected at most %.1f", c.args[0], time, memory, limit)
			}
		}
		return
	}
}

// cost is what a process has used.
type cost struct {
	time   time.Duration // of the processor
	memory int64         // at its peak, in bytes; 0 where that cannot be told
}

func (c cost) least(other cost) cost {
	return cost{min(c.time, other.time), min(c.memory, other.memory)}
}

// over returns how many times as much c is as the reading of some documents.
func (c cost) over(reading cost, documents float64) (time, memory float64) {
	return float64(c.time) / float64(reading.time) / documents,
		float64(c.memory) / float64(max(1, reading.memory)) / documents
}

// costVariable names the environment variable that makes TestCostProcess the process to measure.
const costVariable = "OASGATE_TEST_COST"

// What kin-openapi does with a document, as arguments of TestCostProcess.
const (
	reading       = "reading"
	readingPlaces = "reading with places"
)

func measure(t *testing.T, args ...string) cost {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestCostProcess$")
	command.Env = append(os.Environ(), costVariable+"="+strings.Join(args, "\n"))
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	state := command.ProcessState
	return cost{state.UserTime() + state.SystemTime(), peakMemory(state)}
}

// TestCostProcess is not a test but the process that measure starts.
func TestCostProcess(t *testing.T) {
	text, ok := os.LookupEnv(costVariable)
	if !ok {
		t.Skip("only for TestCost")
	}
	args := strings.Split(text, "\n")
	if args[0] == reading || args[0] == readingPlaces {
		loader := openapi3.NewLoader()
		loader.IncludeOrigin = args[0] == readingPlaces
		if _, err := loader.LoadFromFile(args[1]); err != nil {
			t.Fatal(err)
		}
		return
	}
	collectLess()
	// Of a document with faults, scopes says that it cannot answer, when it has done all the work.
	code := run(t.Context(), args, strings.NewReader(""), io.Discard, os.Stderr)
	if code == unable && args[0] != "scopes" {
		t.Fatal("exit code 2")
	}
}

// described returns a document of which most describes responses, as most do.
func described(operations int) object {
	doc, paths, schemas := skeleton("3.1.0")
	answer := func() object {
		members := object{}
		for _, name := range []string{"id", "name", "owner"} {
			members[name] = object{"type": "string", "description": "What " + name + " is for."}
		}
		return object{"type": "object", "additionalProperties": false, "properties": members}
	}
	schemas["Input"] = object{
		"type":                 "object",
		"additionalProperties": false,
		"properties":           object{"name": object{"type": "string", "maxLength": 100}},
	}
	n := 0
	for n < operations {
		path := "/things" + strings.Repeat("x", n%7) + "/" + time.Duration(n).String()
		items := object{}
		for _, method := range []string{"get", "put", "post", "delete"} {
			o := object{
				"operationId": method + path, "security": requirement(n, "bearerAuth", false), "summary": "An operation.",
				"responses": object{
					"200": object{"description": "fine", "content": jsonContent(answer())},
					"401": object{"description": "no"}, "403": object{"description": "no"},
				},
			}
			if method == "put" || method == "post" {
				o["requestBody"] = object{
					"required": true,
					"content":  jsonContent(schemaRef("Input")),
				}
			}
			items[method] = o
			n++
		}
		paths[path] = items
	}
	return doc
}
