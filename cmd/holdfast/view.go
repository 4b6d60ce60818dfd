package main

import (
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast"
)

// lockView is a lock as it is printed in JSON. Its field names are part of the interface.
type lockView struct {
	Name    string       `json:"name"`
	Holders []holderView `json:"holders"`
	Waiters *int         `json:"waiters,omitempty"` // absent where the engine cannot know
	Limit   int          `json:"limit,omitempty"`
	Fence   int64        `json:"fence,omitempty"`
}

type holderView struct {
	Owner   string    `json:"owner"`
	Mode    string    `json:"mode"`
	Permits int       `json:"permits,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Fence   int64     `json:"fence"`
}

func viewLock(info holdfast.Info) lockView {
	v := lockView{Name: info.Name, Holders: []holderView{}, Limit: info.Limit, Fence: info.Fence}
	if info.Waiters >= 0 {
		v.Waiters = &info.Waiters
	}
	for _, h := range info.Holders {
		v.Holders = append(v.Holders, viewHolder(h))
	}
	return v
}

func viewHolder(h holdfast.Holder) holderView {
	v := holderView{Owner: h.Owner, Mode: h.Mode.String(), Since: h.Since, Until: h.Until, Fence: h.Fence}
	if v.Mode == "permits" {
		v.Permits = h.Weight
	}
	return v
}

// waiters writes the number of waiters for people.
func (v lockView) waiters() string {
	if v.Waiters == nil {
		return "?"
	}
	return fmt.Sprint(*v.Waiters)
}

// mode writes the share of a holder for people.
func (v lockView) mode(h holderView) string {
	if h.Permits > 0 {
		return fmt.Sprintf("permits %d/%d", h.Permits, v.Limit)
	}
	return h.Mode
}

// heading and rows make a table with a line for each holder.
var heading = []string{"NAME", "MODE", "OWNER", "SINCE", "UNTIL", "FENCE", "WAITERS"}

func (v lockView) rows() [][]string {
	var rows [][]string
	for _, h := range v.Holders {
		rows = append(rows, []string{v.Name, v.mode(h), h.Owner, clock(h.Since), clock(h.Until), fmt.Sprint(h.Fence), v.waiters()})
	}
	return rows
}
