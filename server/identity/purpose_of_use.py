"""Why somebody looks at a slide, in the words of HL7's PurposeOfUse: a code of a closed list, because a free text would
bring patients' names into the audit log."""

from server.errors import InvalidRequest

PURPOSE_HEADER = "X-Purpose-Of-Use"
PURPOSES = (
    *("TREAT", "ETREAT", "BTG", "CAREMGT", "COC", "CLINTRL", "PATRQT", "FAMRQT"),
    *("HPAYMT", "HOPERAT", "HQUALIMP", "PATADMIN", "PATSFTY", "HSYSADMIN", "HLEGAL", "HCOMPL", "TRAIN", "SYSDEV"),
    *("HRESCH", "BIORCH", "CLINTRCH", "PUBHLTH"),
)


def purpose_of_use(said: str | None) -> str | None:
    """The code that a request says.

    Raises:
        InvalidRequest: it is none of them.
    """
    if said is None or said in PURPOSES:
        return said
    raise InvalidRequest(f"{PURPOSE_HEADER} must be a code of HL7's PurposeOfUse: {', '.join(PURPOSES)}.")
