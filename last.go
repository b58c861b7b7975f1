package handover

import (
	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
)

// This file is about a parent that is started because the one before it has died. It is one
// of the last generation that has proven itself, as far as the supervisor keeps that: the
// anchor is of its binary and has its configuration, systemd has the latter.

// LastSource is the Config.Source of this service's last generation that has proven itself,
// in a parent that is started because the one before it has died, if the supervisor has
// kept it: the anchor does, and systemd since version 254 (FileDescriptorStoreMax= in
// systemd.service(5)). It is nil in others, and after a stop. Whoever can't use what is in
// the file by now may go by it, and should say so. Call it before Run.
func LastSource() []byte {
	return listen.Text(MaxSource, sdnotify.Anchored())
}

// keepForSuccessor gives the supervisor what a parent needs that comes after this one's
// death. This generation has proven itself. Only the main process may.
func (p *parent) keepForSuccessor() {
	anchor.Offer()
	if !sdnotify.Stores() {
		return
	}
	var err error
	if p.cfg.Source != nil {
		err = sdnotify.StoreText(listen.TextName, p.cfg.Source)
	} else {
		err = sdnotify.Unstore(listen.TextName)
	}
	if err != nil {
		p.log.Warn("the supervisor does not keep the configuration: a parent that comes after this one's death has to read the file", "error", err)
	}
}

// forgetSource: after a stop the file counts.
func (p *parent) forgetSource() {
	if sdnotify.Stores() && p.cfg.Source != nil && !isClosed(p.up.Replaced()) {
		_ = sdnotify.Unstore(listen.TextName) // who does not hear it has ended, or counts the service as stopped
	}
}
