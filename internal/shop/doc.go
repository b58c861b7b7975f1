// Package shop runs a service for tests: parent, two workers and an agent behind their anchor, all
// of them the test's own binary, whose TestMain calls Main.
package shop
