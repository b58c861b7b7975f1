package workerset

func (s *Set) probe(in *incarnation) {}
