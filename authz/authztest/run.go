package authztest

import (
	"context"
	"errors"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// T is the part of *testing.T that [Run] needs, so that what uses only [Check] does not link package testing.
type T[Self any] interface {
	Helper()
	Context() context.Context
	Run(name string, f func(t Self)) bool
	Error(args ...any)
	Fatal(args ...any)
	Skip(args ...any)
}

// Run runs each case as a subtest of t, a *testing.T.
func Run[Self T[Self]](t Self, target Target) {
	t.Helper()
	t.Fatal("authztest: under construction")
}

// Check runs every case and reports on each. The error joins what is wrong with the target itself; then nothing was run.
func Check(ctx context.Context, target Target) (Report, error) {
	return Report{}, errors.New("authztest: under construction")
}

// Issued makes all that the kit can use of a development issuer that the target trusts.
func Issued(issuer *devissuer.Issuer) Tokens { return Tokens{} }
