package main

import "testing"

func TestBoundedPattern(t *testing.T) {
	for pattern, bounded := range map[string]bool{
		`^[0-9a-f]{8}-[0-9a-f]{4}$`: true,
		`^(a|bc?){1,64}$`:           true,
		`^a$|^b{3}$`:                true,
		`(^[a-z]{1,9}$)`:            true,
		`^$`:                        true,
		``:                          false,
		`[0-9]{4}`:                  false, // four digits anywhere
		`^[0-9]{4}`:                 false,
		`[0-9]{4}$`:                 false,
		`^a$|b`:                     false,
		`^a|b$`:                     false,
		`^[a-z]+$`:                  false,
		`^(ab*)?$`:                  false,
		`^a{2,}$`:                   false,
		`(?m)^a$`:                   false, // a line of it
		`^(?!a)b$`:                  false, // not a pattern that is enforced
	} {
		if got := boundedPattern(pattern); got != bounded {
			t.Errorf("boundedPattern(%q) is %v, want %v", pattern, got, bounded)
		}
	}
}

func TestSaysRead(t *testing.T) {
	for scope, reads := range map[string]bool{
		"read:messages": true, "messages.read": true, "READ": true, "messages_list": true,
		"https://issuer.example/auth/calendar.readonly": true,
		"write:messages": false, "messages.readwrite": false, "read_write": false, "thread:post": false, "admin": false,
		"bread": false, "read:users/manage": false,
	} {
		if got := saysRead(scope); got != reads {
			t.Errorf("saysRead(%q) is %v, want %v", scope, got, reads)
		}
	}
}
