package server

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs more tests at the same time than there are processors, because the parallel ones
// mostly wait for time limits.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}
